import json
import random
from collections import Counter

import numpy as np
import pytest

from capfilt.errors import ConfigError, DataError
from capfilt.inputs.texts import clean_caption
from capfilt.inputs.tokenizer import SPECIALS, TextTokenizer, learn_pieces

TEXTS = [
    "A black dog runs through the green grass.",
    "Two dogs are running on the beach!",
    "The man's dog isn't wearing a red collar, it's blue.",
    "a small girl in a pink dress is climbing the stairs",
    "Une café naïve",
] * 3
STAND_IN = [*SPECIALS, *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
STAND_IN += ["'", ".", ",", "!", "?", "dog", "it", "is", "here"]


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(TEXTS, 200)


def test_training_does_not_depend_on_order(tmp_path, tokenizer):
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    again = TextTokenizer.train(shuffled, 200)
    tokenizer.save(tmp_path / "a")
    again.save(tmp_path / "b")
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_specials_stand_first_and_last(tokenizer):
    assert [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert [tokenizer.dec_id, tokenizer.enc_id] == [len(tokenizer) - 2, len(tokenizer) - 1]
    assert len(tokenizer) <= 200


def test_pieces_by_hand():
    words = Counter({"low": 5, "lower": 2, "new": 6})
    # letters, then (e,w)=6 and (n,e)=6, (##o,##w)=7 and (l,##o)=7: most first, ties by the alphabet
    assert learn_pieces(words, 9) == ["##e", "##o", "##r", "##w", "l", "n", "##ow", "low", "##ew"]
    assert learn_pieces(words, 100)[-2:] == ["##er", "lower"]


def test_too_many_letters_keep_the_most_frequent():
    assert learn_pieces(Counter({"ab": 3, "cd": 1}), 2) == ["##b", "a"]


def test_encode_frames_and_truncates(tokenizer):
    rows = tokenizer.encode(["a dog", "a " * 50, ""], max_length=6)
    assert all(row.dtype == np.int32 and row[0] == tokenizer.cls_id and row[-1] == tokenizer.sep_id for row in rows)
    assert [len(row) for row in rows] == [4, 6, 2]


def test_pad_to_the_longest(tokenizer):
    ids, mask = tokenizer.pad(tokenizer.encode(["a dog", "", "dogs"]))
    assert ids.dtype == mask.dtype == np.int64 and ids.shape == mask.shape
    assert (ids[1, 2:] == tokenizer.pad_id).all() and mask[1].tolist()[:3] == [1, 1, 0]
    assert tokenizer.pad([])[0].shape == (0, 0)


def test_round_trip_lower_cases_and_tidies(tokenizer):
    ids = tokenizer.encode(["The man's dog isn't running, it's blue."], 60)[0]
    assert tokenizer.decode(ids) == "the man's dog isn't running, it's blue."
    assert tokenizer.decode([tokenizer.dec_id, *tokenizer.encode(["café"])[0], tokenizer.enc_id]) == "cafe"


def test_save_and_load(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    again = TextTokenizer.load(tmp_path)
    assert len(again) == len(tokenizer) and again.dec_id == tokenizer.dec_id and again.enc_id == tokenizer.enc_id
    for ours, theirs in zip(tokenizer.encode(TEXTS), again.encode(TEXTS), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_vocab_txt_keeps_its_ids(tmp_path, ending):
    (tmp_path / "vocab.txt").write_bytes((ending or "\n").join(STAND_IN).encode() + ending.encode())
    for path in (tmp_path, tmp_path / "vocab.txt"):
        tokenizer = TextTokenizer.from_vocab(path)
        assert len(tokenizer) == len(STAND_IN) + 2 and tokenizer.dec_id == len(STAND_IN)
        assert tokenizer.encode(["Dogs"])[0].tolist() == [2, STAND_IN.index("dog"), STAND_IN.index("##s"), 3]


def test_what_is_no_vocabulary(tmp_path):
    (tmp_path / "words.txt").write_text("hello\nworld\n")
    with pytest.raises(DataError, match=r"lacks \[PAD\]"):
        TextTokenizer.from_vocab(tmp_path / "words.txt")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="not a vocabulary"):
        TextTokenizer.from_vocab(tmp_path / "broken.json")
    with pytest.raises(DataError, match="no such file"):
        TextTokenizer.load(tmp_path)
    with pytest.raises(DataError, match="holds neither"):
        TextTokenizer.from_vocab(tmp_path)


def test_mistakes_in_settings(tokenizer):
    with pytest.raises(ConfigError, match="vocab_size=5"):
        TextTokenizer.train(["a"], 5)
    with pytest.raises(DataError, match="no text holds a word"):
        TextTokenizer.train(["", " "])
    with pytest.raises(ConfigError, match="max_length=1"):
        tokenizer.encode(["a"], 1)
    with pytest.raises(ConfigError, match="list of texts"):
        tokenizer.encode("a")
    with pytest.raises(DataError, match="outside the vocabulary"):
        tokenizer.decode([10**6])


def test_the_bert_vocabulary_reads_as_the_original_did(shared):
    vocab = shared / "data/vocab/bert-base-uncased-vocab.txt"
    case = shared / "golden/blip/08_preprocess/text.json"
    golden = json.loads(case.read_text())
    bert = TextTokenizer.from_vocab(vocab)
    special = golden["special_ids"]
    assert [bert.pad_id, bert.cls_id, bert.sep_id, bert.dec_id, bert.enc_id, len(bert)] == [
        special[name] for name in ("pad", "cls", "sep", "bos_dec", "enc", "len")
    ]
    for row, want in zip(golden["cleaning"], golden["tokenisation"], strict=True):
        raw = bert.encode([row["in"]], 10_000)[0]
        assert raw.tolist() == want["raw_ids"]
        assert bert.decode(raw) == want["raw_decoded_skip_special"]
        clean = bert.encode([clean_caption(row["in"])], 35)[0].tolist()
        assert clean == want["clean_ids_pad35"][: sum(want["clean_mask_pad35"])]
    ids, mask = bert.pad(bert.encode(golden["batch_longest"]["texts"]))
    assert ids.tolist() == golden["batch_longest"]["input_ids"]
    assert mask.tolist() == golden["batch_longest"]["attention_mask"]
    assert bert.encode(["a picture of "])[0].tolist() == golden["prompt_ids"]
