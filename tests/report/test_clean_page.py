"""The page of a cleaning run: complete, safe against any text, and exact about other bars."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from capfilt.errors import CheckFailed
from capfilt.report.clean import (
    Bars,
    CleanRecord,
    Counted,
    Curve,
    Gallery,
    Group,
    KindOfText,
    Sample,
    Truth,
    write_clean_report,
)
from capfilt.report.clean.page import render

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></script><svg onload=alert(1)>",
    "' autofocus onfocus=alert(1) x='",
    "javascript:alert(1)",
    "safe \u202egnp.exe\u202c \u0000 \ud800",
    "word " * 3000,
    "",
)


class Tags(HTMLParser):
    """Collects tags with their attributes, and what is never closed."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def jpeg(colour: str) -> bytes:
    to = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(to, "JPEG")
    return to.getvalue()


def sample(text: str, decision: str = "keep", image: bytes | None = None) -> Sample:
    return Sample(
        "0" * 32, text, text, decision, text, text, (text,), text, text, 0.9, 0.2, 0.9, 0.2, 0.4, 0.1, image, text
    )


BARS = Bars(
    "blip", 0.0, 0.01, 100, [(101, 0, 1, 3), (51, 101, 0, 4), (50, 20, 1, 2)], {"failed": 1, "drop": 5}, 0.5, 0.5
)


TRUTH = Truth(
    [KindOfText("clean", True, 50, 0, 30), KindOfText(HOSTILE[0], False, 50, 5, 10)],
    {"ITM": 0.75, "ITC": 0.7},
    5.0,
    {"ITM": [(0.0, 0.0), (0.5, 0.75), (1.0, 1.0)]},
)


def record(**changes) -> CleanRecord:
    rows = [sample(text, image=jpeg("red")) for text in HOSTILE]
    whole = {
        "title": HOSTILE[0],
        "counts": {"in": 15, "keep": 7, "replace": 0, "drop": 7, "failed": 1},
        "funnel": [("rows in", 15, "1 could not be read"), ("with a text", 7, "")],
        "sources": {text: {"keep": 1, "drop": 1} for text in HOSTILE},
        "reasons": [("keep", text, 2) for text in HOSTILE],
        "text_rules": {"text_short": 2},
        "scores": [Counted("ITM", 0.0, 1.0, {"web texts": [3] + [0] * 98 + [9]}, {"bar": 0.5})],
        "bars": BARS,
        "curve": Curve([(0.1, 1.0), (1.0, 0.6)], 40, 0.9, 0.41),
        "truth": TRUTH,
        "galleries": [Gallery("a", HOSTILE[1], HOSTILE[2], "keep", rows, 900)],
        "duplicates": [Group(rows[:3], 12)],
        "duplicate_groups": 4,
        "failures": [(HOSTILE[0], 1, [sample(text, "failed") for text in HOSTILE])],
        "settings": {HOSTILE[0]: HOSTILE[1], "n": 3},
        "notes": [HOSTILE[0]],
    }
    return CleanRecord(**(whole | changes))


@pytest.fixture(scope="module")
def page() -> str:
    return render(record())


def test_every_part_is_there_and_closed(page):
    found = Tags(page)
    assert not found.open
    names = [attrs["id"] for tag, attrs in found.tags if tag == "section"]
    assert names == ["rows", "scores", "truth", "bars", "sources", "gallery", "duplicates", "failures", "settings"]


def test_no_text_becomes_markup(page):
    for tag, attrs in Tags(page).tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("style", "autofocus")], (tag, attrs)
        assert tag != "script" or attrs == {"src": "report.js", "defer": None}
        assert not str(attrs.get("src", "")).startswith(("http", "javascript", "x"))
    assert "alert(1)</script>" not in page and "\u202e" not in page and "\x00" not in page


def test_the_policy_allows_this_style_sheet_one_script_beside_it_and_nothing_else(page):
    policy = next(a["content"] for t, a in Tags(page).tags if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy and "script-src 'self'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_texts_of_known_truth_before_and_after(page):
    section = re.search(r'<section id="truth">.*?</section>', page, re.S)[0]
    assert "50.0 % do. Of the 40 that are kept, 75.0 % do; of all that do, 60.0 % are kept" in section
    assert "ITM 0.750, ITC 0.700" in section and "weight of 5" in section and "<svg" in section
    assert 'id="truth"' not in render(record(truth=None))
    alone = render(record(truth=Truth(TRUTH.kinds[:1])))
    assert "100.0 %" in alone and "area under" not in alone


def test_another_bar_is_counted_from_the_bins():
    assert BARS.counts(50, 50) == {"keep": 7, "replace": 0, "drop": 7, "failed": 1}
    assert BARS.counts(51, 100) == {"keep": 3, "replace": 4, "drop": 7, "failed": 1}
    assert BARS.counts(0, 0) == {"keep": 9, "replace": 0, "drop": 5, "failed": 1}


@pytest.mark.parametrize(
    ("policy", "counts"),
    [
        ("blip", (2, 1, 1)),
        ("replace-low", (2, 1, 1)),
        ("best", (1, 2, 1)),
        ("both", (2, 1, 1)),
        ("keep-web", (2, 0, 2)),
    ],
)
def test_each_policy_has_its_own_way(policy, counts):
    found = Bars(policy, 0.0, 0.01, 100, [(60, 70, 0, 1), (60, 0, 1, 1), (0, 60, 0, 1), (0, 0, 1, 1)], {}).counts(
        50, 50
    )
    assert (found["keep"], found["replace"], found["drop"]) == counts


def test_the_table_without_a_script_says_what_the_sliders_would(page):
    found = next(attrs["data-bars"] for tag, attrs in Tags(page).tags if "data-bars" in attrs)
    assert json.loads(found)["cells"] == [list(cell) for cell in BARS.cells]
    row = re.search(r'<tr><th scope="row">0\.50</th>(.*?)</tr>', page)[1]
    assert re.findall(r">(\d+)<", row) == ["7", "0", "7", "1"]


def test_counts_that_do_not_add_up_are_refused():
    with pytest.raises(CheckFailed, match="15 rows in"):
        render(record(counts={"in": 15, "keep": 7, "replace": 0, "drop": 7, "failed": 2}))


def test_an_empty_run_has_a_page():
    page = render(CleanRecord("empty", {"in": 0, "keep": 0, "replace": 0, "drop": 0, "failed": 0}))
    assert "No rows went in" in page and not Tags(page).open


def test_it_is_written_with_its_script_beside_it(tmp_path):
    path = write_clean_report(tmp_path / "report", record())
    assert path.name == "index.html" and sorted(p.name for p in path.parent.iterdir()) == ["index.html", "report.js"]
