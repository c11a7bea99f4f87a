"""Sources of pairs, batching, and the drawn world."""
