"""The review page of a cleaning run: rows from a memory-mapped table, what people say about them, a small server."""
