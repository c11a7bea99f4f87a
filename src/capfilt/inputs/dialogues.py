"""A talk about a picture as one row of ids."""

from collections.abc import Sequence

import numpy as np

from capfilt.inputs.texts import clean_caption
from capfilt.inputs.tokenizer import TextTokenizer


def dialogue_ids(tokenizer: TextTokenizer, parts: Sequence[str], positions: int) -> np.ndarray:
    """[CLS] part [SEP] part [SEP] ... answer [SEP] as int32 ids; the oldest parts go where all do not fit.

    The paper does not say how parts are joined; BERT's own separator is what the weights know.
    """
    bodies = [row[1:] for row in tokenizer.encode([clean_caption(part) for part in parts], positions)]
    while len(bodies) > 1 and 1 + sum(map(len, bodies)) > positions:
        bodies.pop(0)
    whole = np.concatenate([np.array([tokenizer.cls_id], np.int32), *bodies])
    return np.concatenate((whole[: positions - 1], whole[-1:])) if len(whole) > positions else whole
