import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.inputs.texts import clean_caption, clean_question, plain_text


def test_caption_rule_by_hand():
    assert clean_caption('A dog; two (small) "CATS".') == "a dog two small cats"
    assert clean_caption("what? yes, it's semi-colon") == "what? yes, it's semi-colon"
    assert clean_caption("one two three four", max_words=2) == "one two"
    assert clean_caption(" \n") == ""


def test_question_rule_deletes_instead_of_spacing():
    assert clean_question("How many? (total): a.b ") == "how many? total ab"
    assert clean_question("one  two three", max_words=2) == "one "  # an empty word between two spaces counts


def test_the_original_says_the_same(shared):
    case = shared / "golden/blip/08_preprocess/text.json"
    rows = json.loads(case.read_text())["cleaning"]
    for row in rows:
        for words in (30, 40, 50):
            assert clean_caption(row["in"], words) == row[f"pre_caption_{words}"]
        for words in (8, 50):
            assert clean_question(row["in"], words) == row[f"pre_question_{words}"]
    assert len(rows) == 60


@pytest.mark.parametrize(
    ("raw", "text", "flags"),
    [
        ("a dog", "a dog", ()),
        (" two\r\nlines\tand a tab ", "two lines and a tab", ()),
        ("cafe\u0301", "caf\u00e9", ()),
        ("\ufeffmark", "mark", ()),
        (b"\xef\xbb\xbfmark", "mark", ()),
        ("nul\x00 bell\x07", "nul bell", ("control_stripped",)),
        ("abc\u202egpj.exe\u202c", "abcgpj.exe", ("bidi_stripped",)),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469", ()),
        (b"caf\xe9", "caf\ufffd", ("not_utf8",)),
        ("lone \ud800 half", "lone ? half", ("not_utf8",)),
        ("x" * 9000, "x" * 8192, ("text_truncated",)),
        ("\u00e9" * 4096, "\u00e9" * 4096, ()),
        ("x" + "\u00e9" * 4096, "x" + "\u00e9" * 4095, ("text_truncated",)),
    ],
)
def test_plain_text(raw, text, flags):
    assert plain_text(raw) == (text, flags)


def test_bytes_are_cut_between_characters():
    assert plain_text("\u00e9\u00e9\u00e9".encode(), max_bytes=5) == ("\u00e9\u00e9", ("text_truncated",))


@given(
    st.one_of(st.text(), st.binary(), st.text(alphabet=st.characters(categories=["Cs", "Cc", "Mn", "Lo"]))),
    st.integers(4, 40),
)
def test_plain_text_never_raises_and_keeps_its_promises(raw, cap):
    text, _ = plain_text(raw, cap)
    assert len(text.encode("utf-8")) <= cap
    assert not any(unicodedata.category(c) == "Cc" or "\u202a" <= c <= "\u202e" for c in text)
    assert unicodedata.is_normalized("NFC", text)
    assert plain_text(text, cap)[0] == text


@given(st.text(max_size=200), st.integers(1, 30))
def test_cleaning_twice_changes_nothing(text, words):
    once = clean_caption(text, words)
    assert len(once.split(" ")) <= words
    assert not set(once) & set('.!"()*#:;~')
    assert clean_caption(once, words) in (once, once.strip(" \n"))
