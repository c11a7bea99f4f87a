"""One function, one run."""
