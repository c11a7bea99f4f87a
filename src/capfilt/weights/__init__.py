"""Load and save weights; one rename table per origin."""
