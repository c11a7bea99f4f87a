"""Reference cases, computed again with our own model."""
