"""The rounds: train, clean, train again, compare, report."""
