"""Retrieval, captions, filters; with intervals."""
