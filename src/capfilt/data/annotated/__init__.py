"""Readers of the official annotation files, one file a data set; all give the records of `data.annotations`."""
