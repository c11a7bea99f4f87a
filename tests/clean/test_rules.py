"""Rules: each takes out what it should in words with numbers; what is about the text leaves the image in."""

import json
import sys
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.clean import rules as room
from capfilt.clean.columns import FLAGS, ROWS
from capfilt.clean.rules import NEEDS, Rules, alone, flags, whole
from capfilt.config import from_dict, to_dict
from capfilt.errors import ConfigError

OFF = Rules(0, 0, 0, 0, 0, 0, boilerplate_rows=0, opt_out=False, duplicates="off")
HOUSE, CAT = 0x0F1E2D3C4B5A6978, 0xF0E1D2C3B4A59687  # looks that have nothing in common


def table(*rows: dict[str, Any]) -> pa.Table:
    """Rows that break no rule, but for what they say; every one another image and another text."""
    whole = []
    for i, row in enumerate(rows):
        plain = {
            "id": f"{i:032x}",
            "key": f"k{i}",
            "source": "s",
            "texts": [f"a dog number {'abcdefghijklmnop'[i % 16] * (i // 16 + 1)}"],
            "licence": " CC-by",
            "meta": "{}",
            "sha256": f"{i:064x}",
            "width": 200,
            "height": 100,
            "looks": (0x9E3779B97F4A7C15 * (i + 1)) % 2**64,
            "spread": 50.0,
        }
        whole.append(plain | row)
    return pa.Table.from_pylist(whole, schema=ROWS)


@pytest.mark.parametrize(
    "text",
    [
        *("DSC_4526.JPG", "100_8034.jpg", "IMG_2041", "my-cat_01.webp", "https://a.example/b.php?c=d", "www.a.example"),
        *("Screen Shot 2013-01-17 at 10.24.11 AM.png", "00012", "photo 3", "NIKON D500 - f2.8 1/125s ISO800"),
    ],
)
def test_names_of_files_are_no_captions(text):
    assert broken(table({"texts": [text]}), Rules()) == ["text_name"]
    assert broken(table({"texts": [text]}), Rules(names=False)) == [None]


@pytest.mark.parametrize(
    "text", ["two dogs on a beach.jpg", "the house at www.a.example", "image of 3 dogs", "24 pigs"]
)
def test_captions_with_names_in_them_stay(text):
    assert broken(table({"texts": [text]}), Rules()) == [None]


def broken(rows: pa.Table, rules: Rules) -> list[str | None]:
    return flags([rows], rules)["rule"].to_pylist()


def told(rows: pa.Table, rules: Rules) -> list[str | None]:
    return flags([rows], rules)["told"].to_pylist()


def test_clean_rows_break_nothing():
    rows = table(*[{}] * 20, {"texts": []}, {"texts": None}, {"texts": ["日落"]})
    found = flags([rows], Rules())
    assert found.schema.equals(FLAGS) and found["id"].equals(rows["id"])
    assert found["rule"].null_count == found["told"].null_count == found["group"].null_count == 23


@pytest.mark.parametrize(
    ("row", "rules", "rule", "words"),
    [
        ({"width": 31, "height": 400}, {}, "too_small", "the image is 31 × 400 px (short side < 32)"),
        ({"width": 401}, {}, "odd_aspect", "the image is 401 × 100 px (4.0 : 1 > 4)"),
        ({"width": 100, "height": 900}, {"max_aspect": 8.5}, "odd_aspect", "the image is 100 × 900 px (9.0 : 1 > 8.5)"),
        ({"spread": 1.96}, {}, "blank", "the image is blank (levels spread 2.0 < 2)"),
        ({"texts": [""]}, {}, "text_short", "the web text has 0 words (< 1)"),
        ({"texts": ["a dog"]}, {"min_words": 3}, "text_short", "the web text has 2 words (< 3)"),
        ({"texts": [" x "]}, {}, "text_short", "the web text has 1 characters (< 2)"),
        ({"texts": ["so " * 257]}, {}, "text_long", "the web text has 257 words (> 256)"),
        ({"licence": None}, {"require_licence": ("any",)}, "licence", "it names no licence; needed: any"),
        ({"licence": " "}, {"require_licence": ("any",)}, "licence", "its licence is ' ', not any"),
        (
            {"licence": "all rights"},
            {"require_licence": ("CC0", "cc-by")},
            "licence",
            "its licence is 'all rights', not CC0, cc-by",
        ),
    ],
)
def test_one_row_and_its_words(row, rules, rule, words):
    rows = table({}, row, {"licence": "cc0"})
    found = flags([rows], Rules(**rules))
    assert found["rule"].to_pylist() == [None, rule, None]
    assert found["told"].to_pylist() == [None, words, None]
    assert alone(rows, Rules(**rules)).equals(found)
    assert whole(found["rule"]).to_pylist() == [False, not rule.startswith("text_"), False]
    assert broken(rows, OFF) == [None] * 3


@pytest.mark.parametrize(
    ("meta", "out"),
    [
        ({"opt_out": True}, True),
        ({"Opt-Out": "yes"}, True),
        ({"noai": 1}, True),
        ({"opt_out": False, "noai": 0, "optout": None}, False),
        ({"opt_out": ""}, False),
        ({"x-robots-tag": "all, NoAI"}, True),
        ({"X_Robots_Tag": "googlebot: noindex"}, True),
        ({"robots": "index, follow"}, False),
        ({"note": 'it says "opt_out": true'}, False),
        ({}, False),
    ],
)
def test_who_says_no_is_heard(meta, out):
    rows = table({"meta": None}, {"meta": json.dumps(meta)})
    assert broken(rows, Rules()) == [None, "opt_out" if out else None]
    if out:
        name, value = next(iter(meta.items()))
        assert told(rows, Rules())[1] == f"its owner said no ({name}: {value})"


def test_failed_rows_break_nothing_and_stand_for_nothing():
    gone = dict.fromkeys(("sha256", "width", "height", "looks", "spread"))
    rows = table({"failed": "missing_file", **gone}, {"failed": "truncated", **gone}, {"failed": "x", "width": 1}, {})
    for duplicates in ("exact", "alike"):
        found = flags([rows], Rules(duplicates=duplicates, require_licence=()))
        assert found["rule"].null_count == found["group"].null_count == 4


def test_the_same_bytes_are_one_image_and_the_largest_stands():
    twin = {"sha256": "f" * 64}
    rows = table(twin, {}, twin, twin)
    found = flags([rows], Rules())
    ids = rows["id"].to_pylist()
    assert found["rule"].to_pylist() == [None, None, "duplicate", "duplicate"]
    assert found["told"].to_pylist()[2] == "the image is that of k0, byte for byte"
    assert found["group"].to_pylist() == [ids[0], None, ids[0], ids[0]]
    assert broken(rows, Rules(duplicates="off")) == [None] * 4


def test_images_that_look_the_same():
    rows = table(
        {"looks": HOUSE}, {"looks": HOUSE ^ 0b1011, "width": 300}, {"looks": CAT}, {"looks": HOUSE ^ 0b1111 << 40}
    )
    assert broken(rows, Rules()) == [None] * 4  # other bytes
    found = flags([rows], Rules(duplicates="alike"))
    assert found["rule"].to_pylist() == ["duplicate", None, None, "duplicate"]
    assert found["told"].to_pylist()[0] == "the image looks like that of k1 (3 of 64 bits differ)"
    assert found["told"].to_pylist()[3] == "the image looks like that of k1 (7 of 64 bits differ)"  # by way of k0
    assert found["group"].to_pylist() == [rows["id"][1].as_py()] * 2 + [None, rows["id"][1].as_py()]
    assert broken(rows, Rules(duplicates="alike", alike_bits=2)) == [None] * 4


def test_what_is_out_stands_for_nobody():
    twin = {"sha256": "f" * 64, "looks": 0}
    rows = table({**twin, "licence": "c"}, {**twin, "licence": "free"}, {**twin, "licence": "free", "spread": 0.0})
    found = flags([rows], Rules(require_licence=("free",), duplicates="alike"))
    assert found["rule"].to_pylist() == ["licence", None, "blank"]
    assert found["group"].null_count == 3
    blank = table(*[{"spread": 0.0, "looks": 0, "sha256": "0" * 64}] * 5)
    assert broken(blank, Rules(duplicates="alike")) == ["blank"] * 5


def test_a_text_that_stands_everywhere():
    stock = [{"texts": [f"Stock photo {i}."]} for i in range(5)]
    rows = table(*stock, {"texts": ["stock PHOTO", "stock photo"]}, {"texts": ["Stock photo 9", "a dog"]}, {})
    few = Rules(boilerplate_rows=6)
    found = flags([rows], few)
    assert found["rule"].to_pylist() == ["text_boilerplate"] * 6 + [None] * 2
    assert found["told"][0].as_py() == "the web text stands, but for numbers and case, in 7 rows (> 6)"
    assert found["told"][5].as_py().startswith("none of 2 web texts will do: one stands")
    assert broken(rows, Rules(boilerplate_rows=7)) == [None] * 8
    assert broken(rows, Rules(boilerplate_rows=6, boilerplate_share=0.9)) == [None] * 8  # more than 7 of 8
    assert broken(rows, Rules(boilerplate_rows=0)) == [None] * 8


def test_copies_of_an_image_do_not_make_its_text_boilerplate():
    rows = table(*[{"texts": ["a very rare bird"], "sha256": "f" * 64}] * 6)
    assert broken(rows, Rules(boilerplate_rows=3)) == [None] + ["duplicate"] * 5


def test_a_row_with_one_good_text_stays():
    rows = table({"texts": ["", "a dog"]}, {"texts": ["", "a"]}, *[{"texts": ["", "free download"]}] * 3)
    found = flags([rows], Rules(boilerplate_rows=2))
    assert found["rule"].to_pylist() == [None, "text_short"] + ["text_boilerplate"] * 3
    assert found["told"][1].as_py() == "none of 2 web texts will do: one has 0 words (< 1)"
    assert alone(rows, Rules())["rule"].to_pylist() == [None, "text_short", None, None, None]


def test_a_rule_about_the_image_outdoes_one_about_the_text():
    twin = {"sha256": "f" * 64, "texts": [""]}
    assert broken(table(twin, twin, {"texts": [""], "width": 5}), Rules()) == ["text_short", "duplicate", "too_small"]


@pytest.fixture
def no_judge_yet():
    room._judge.cache_clear()
    yield
    room._judge.cache_clear()


def test_languages_need_their_extra(monkeypatch, no_judge_yet):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match=r"capfilt\[lang\]"):
        alone(table({}), Rules(languages=("en",)))


def test_languages(monkeypatch, no_judge_yet):
    class Judge:
        @classmethod
        def from_model_file(cls, path, norm_probs):
            assert norm_probs
            return cls()

        labels = ("de", "en")

        def classify(self, text):
            return ("de", 0.4 if "?" in text else 0.9) if "Hund" in text else ("en", 0.8)

    module = ModuleType("py3langid.langid")
    vars(module).update(MODEL_FILE="", LanguageIdentifier=Judge)
    monkeypatch.setitem(sys.modules, "py3langid", ModuleType("py3langid"))
    monkeypatch.setitem(sys.modules, "py3langid.langid", module)
    rows = table({"texts": ["ein Hund"]}, {"texts": ["ein Hund?"]}, {"texts": ["a dog"]}, {"texts": ["Hund", "dog"]})
    assert told(rows, Rules(languages=("en",))) == ["the web text seems to be in de (0.90), not en", None, None, None]
    with pytest.raises(ConfigError, match="xx unknown; known are de, en"):
        alone(rows, Rules(languages=("xx",)))


def test_languages_for_real(no_judge_yet):
    pytest.importorskip("py3langid", reason="the extra `lang` is not installed")
    rows = table(
        {"texts": ["ein großer brauner Hund läuft über die grüne Wiese"]},
        {"texts": ["a big brown dog runs over the green meadow"]},
    )
    assert broken(rows, Rules(languages=("en",))) == ["text_language", None]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 7))
def test_how_rows_are_cut_into_tables_does_not_matter(kinds, cut):
    given = [
        {},
        {"sha256": "f" * 64},
        {"looks": HOUSE, "texts": ["free download"]},
        {"texts": ["", "free download"]},
        {"failed": "url", "looks": None},
        {"spread": 0.0},
    ]
    rows = table(*(given[kind] for kind in kinds))
    rules = Rules(duplicates="alike", boilerplate_rows=2)
    some = [rows.slice(at, cut).select(NEEDS) for at in range(0, len(rows), cut)]
    assert flags(some, rules).equals(flags([rows], rules))
    assert len(flags([], rules)) == 0


def test_settings_travel_and_are_checked():
    rules = Rules(languages=("en",), duplicates="alike", max_aspect=3.0)
    assert from_dict(Rules, to_dict(rules)) == rules
    for wrong in ({"min_px": -1}, {"boilerplate_share": 1.5}, {"duplicates": "some"}, {"alike_bits": 13}):
        with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
            Rules(**wrong)
