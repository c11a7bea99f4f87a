"""Texts that are longer than a model reads: what is left out is told."""

import warnings
from collections.abc import Callable, Iterable

from capfilt.inputs.tokenizer import TextTokenizer


def tell_cut(tokenizer: TextTokenizer, texts: Iterable[str], clean: Callable[..., str], limit: int) -> None:
    """A warning, from where the caller was called, if there are texts of which words are cut.

    clean: `clean_caption` or its like, which may cut words itself. limit: ids, [CLS] and [SEP] included.
    """
    whole = [clean(text, 10**6) for text in texts]
    kept = [clean(text) for text in whole]
    lengths = [len(row) for row in tokenizer.encode(kept, 10**6)]
    cut = [w for w, k, n in zip(whole, kept, lengths, strict=True) if n > limit or w.count(" ") > k.count(" ")]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(whole)} texts are longer than the model reads ({limit} ids); what is beyond is "
            f"left out. The first begins {cut[0][:40]!r}",
            stacklevel=3,
        )
