"""A small JPEG, and what a source gives, sorted."""

import io

import numpy as np
from PIL import Image

from capfilt.data.sources import Failure, open_source
from capfilt.pair import Pair


def jpg(shade=0):
    """An 8 x 8 JPEG of one grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def read(path, **options):
    """(pairs, failures) of a source."""
    items = list(open_source(path, **options).read())
    return [i for i in items if isinstance(i, Pair)], [i for i in items if isinstance(i, Failure)]


def texts(pairs):
    """Key → texts."""
    return {pair.key: pair.texts for pair in pairs}


def reasons(failures):
    """Key → reason."""
    return {failure.key: failure.reason for failure in failures}
