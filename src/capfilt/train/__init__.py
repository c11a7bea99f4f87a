"""One training loop: optimiser, schedules, checkpoints."""
