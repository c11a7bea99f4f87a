"""Network parts: no losses, no files."""
