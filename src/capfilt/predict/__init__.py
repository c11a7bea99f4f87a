"""Decode, caption, match, embed."""
