"""What answers over HTTP: the page on which people review a run."""
