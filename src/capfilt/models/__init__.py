"""One system, one file."""
