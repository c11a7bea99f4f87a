"""The page: one file, safe against any caption, complete, and whole on disk."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from capfilt.errors import CheckFailed, DataError
from capfilt.report import Card, Counts, Report, write_report
from capfilt.report.gallery import OPEN_CARDS, data_uri, gallery
from capfilt.report.page import render

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Balance(HTMLParser):
    """Every tag closed in order; collects tags, attributes and text."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def page(report):
    return render(report)


def test_html_is_balanced_and_hostile_captions_stay_text(page):
    parsed = Balance(page)
    names = {tag for tag, _ in parsed.tags}
    assert "script" not in names
    assert not [key for _, attrs in parsed.tags for key in attrs if key.startswith("on") or key == "style"]
    text = "".join(parsed.text)
    assert "<script>alert(1)</script>" in text and '"><img src=x onerror=alert(1)>' in text
    assert "fish & chips &amp; 'quotes'" in text, "escaped once, not twice"
    assert "(empty)" in text and "(15,000 characters)" in text


def test_hidden_and_reordering_signs_are_spelled_out(page):
    assert "\u202e" not in page and "\u200b" not in page and "\x00" not in page and "\ud800" not in page
    assert "[U+202E]gnp.exe[U+202C]" in page
    assert "👩‍👩‍👧 ein Mädchen" in page, "joiners of emoji stay"
    page.encode("utf-8")


def test_nothing_is_loaded_from_outside(page):
    parsed = Balance(page)
    for tag, attrs in parsed.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert (attrs.get("src") or "data:").startswith("data:image/") or "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    assert not re.search(r"url\(|@import|http|//", style)
    bare = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", "", page)
    assert "http" not in bare.replace("http-equiv", "").replace("https://evil.example", "").replace(
        "http://evil.example", ""
    )


def test_policy_forbids_scripts_and_matches_the_style(page):
    policy = next(a["content"] for t, a in Balance(page).tags if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    code = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{code}'" in policy and "default-src 'none'" in policy and "unsafe" not in policy


def test_page_tells_the_numbers(page):
    text = " ".join("".join(Balance(page).text).split())
    for words in (
        "45.2 %",
        "+7.1 [+5.2, +9.0]",
        "1.104",
        "12,000 in",
        "4,911 replaced",
        "0.981",
        "94.3 %",
        "9 min 48 s",
    ):
        assert words in text, words
    assert "The filter gave the web text 0.04 (< 0.50) and the synthetic text 0.91 (≥ 0.50)." in text
    assert "0.4996 (< 0.50)" in text, "a score just below must not read as equal"
    assert "The image file ends before the picture does." in text
    assert "The file holds 3 of 4,096 bytes." in text, "a sentence given with the card stands"


def test_survivors_are_marked(report):
    html = gallery([Card("replaced", None, "web words", "new words", 0.04, 0.9)], 0.5)
    assert "<del><bdi>web words</bdi></del>" in html and "<ins><bdi>new words</bdi></ins>" in html
    both = gallery([Card("kept", None, "web words", "new words", 0.9, 0.8, keep_web=True, keep_synthetic=True)], 0.5)
    assert "<ins><bdi>web words" in both and "<ins><bdi>new words" in both
    many = gallery([Card("kept", None, "a b")] * (OPEN_CARDS + 3), None)
    assert "Show 3 more" in many and many.count("<article") == OPEN_CARDS + 3


def test_missing_parts_are_left_out(bare):
    page = render(bare)
    Balance(page)
    for absent in (
        'id="result"',
        'id="filter"',
        'id="gallery"',
        'id="training"',
        'id="cost"',
        'id="settings"',
        "<figure",
    ):
        assert absent not in page, absent
    assert 'id="pairs"' in page and "not measured" in page
    Balance(render(Report("nothing", Counts(0))))


@pytest.mark.parametrize("counts", [Counts(10, 4, 3, 2, 0), Counts(10, 11, 0, -1, 0)])
def test_counts_that_do_not_add_up_are_refused_before_anything_is_written(bare, tmp_path, counts):
    with pytest.raises(CheckFailed, match="do not add up: 10 in"):
        write_report(tmp_path / "out", replace(bare, counts=counts))
    assert not (tmp_path / "out").exists()


def test_write_report_leaves_page_and_plots_and_no_temporaries(report, tmp_path):
    path = write_report(tmp_path, report)
    assert path == tmp_path / "report.html"
    names = {p.name for p in (tmp_path / "plots").iterdir()}
    stems = {"results", "scores", "roc", "kinds", "losses-model-0", "losses-model-1", "flow"}
    assert names == {f"{stem}.{end}" for stem in stems for end in ("svg", "png")}
    assert not list(tmp_path.rglob(".*"))
    first = path.read_bytes()
    assert write_report(tmp_path, report).read_bytes() == first, "the same run writes the same page"


def test_hostile_stage_names_stay_inside_the_folder(bare, tmp_path):
    losses = {
        "../../etc/itc": [(0, 1.0), (1, 0.5)],
        "..//itc": [(0, 1.0), (1, 0.5)],
        "ÄÖ/x": [(0, 1.0)],
        "y": [(0, 2.0)],
    }
    write_report(tmp_path / "a" / "b", replace(bare, losses=losses))
    assert {p.parent.name for p in tmp_path.rglob("*.svg")} == {"plots"}
    assert len(list((tmp_path / "a" / "b" / "plots").glob("losses*.svg"))) == 4, "no picture overwrote another"


def test_data_uri_reduces_large_images_and_refuses_others():
    uri, size = data_uri(np.zeros((800, 400, 3), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,") and size == (160, 320)
    uri, size = data_uri(np.zeros((48, 40, 3), np.uint8))
    assert uri.startswith("data:image/png;base64,") and size == (40, 48)
    with pytest.raises(DataError, match="uint8"):
        data_uri(np.zeros((8, 8, 3), np.float32))
