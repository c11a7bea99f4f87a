"""A text of which something is cut is told, once for all of a call; others are not."""

import warnings

import pytest

from capfilt.inputs.texts import clean_caption
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.predict.cut import tell_cut


def test_what_is_cut_is_told():
    words = TextTokenizer.train(["a red cube"], 40)

    with pytest.warns(UserWarning, match=r"1 of 2 texts .* \(4 ids\); .* begins 'a red cube'"):
        tell_cut(words, ["a cube", "a red cube"], clean_caption, 4)
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        tell_cut(words, ["cube " * 60], clean_caption, 10**6)  # words that cleaning leaves out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell_cut(words, ["a red cube"], clean_caption, 5)
