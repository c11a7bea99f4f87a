"""The page: one file, safe against any caption, complete, and whole on disk."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from capfilt.errors import CheckFailed, DataError
from capfilt.report import Card, Counts, Report, write_report
from capfilt.report.figures import figures
from capfilt.report.flow import flow_svg
from capfilt.report.gallery import data_uri, gallery
from capfilt.report.page import render
from capfilt.report.plot import layout
from capfilt.report.shapes import Label
from capfilt.report.words import REASON_WORDS

ROOT = Path(__file__).resolve().parents[2]
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
    bare = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
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
    assert "0.981 [0.977, 0.984]" in text
    assert "The filter gave the web text 0.040 (< 0.500); the filter gave the synthetic text 0.910 (≥ 0.500)." in text
    assert "0.4996 (bar 0.5000)" in text, "a score just below must not read as equal"
    assert "The image file ends before the picture does (PNG of 99 bytes stops early)." in text
    assert "The pair came without a text (captions.jsonl:3: no caption)." in text


def test_every_reason_of_a_failed_row_has_words():
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/errors.md").read_text().partition("| decision |")[0], re.M)
    assert set(REASON_WORDS) == set(documented) and "decoder_crash" in documented


def test_names_of_the_files_are_put_into_words(page, report):
    text = " ".join("".join(Balance(page).text).split())
    for words in ("First model", "Second model", "Filter only", "human pairs and kept web texts", "one wrong word"):
        assert words in text, words
    for words in ("Training: second model", "Tuning the filter, round 1", "Scoring web texts", "ITC, comparing"):
        assert words in text, words
    assert "in percentage points, for CIDEr, BLEU-4 in points" in text
    assert not re.search(r"\b(models/|cleaners/|itc_tr1|attribute|hand-written|Model [01]|bootstrapped model)", text)
    assert not [s for s in layout(figures(report)["results"]) if isinstance(s, Label) and "…" in s.text]


def test_drawn_data_is_not_sold_as_the_work_of_people(report, page):
    drawn, found = ("".join(Balance(render(replace(report, drawn=d))).text) for d in (True, False))
    assert "a program drew small scenes" in drawn and "a program drew" not in found
    assert "found with" not in drawn and "found with" in found
    assert "people wrote" not in drawn and "written by people" not in drawn


def test_human_pairs_lead_to_the_cleaners_and_the_second_model(report, bare):
    assert flow_svg(report).count('class="k-s0"') == 2 and flow_svg(bare).count('class="k-s0"') == 0


def test_survivors_are_marked(report):
    html = gallery([Card("replaced", None, "web words", "new words", 0.04, 0.9)], 0.5)
    assert "<del><bdi>web words</bdi></del>" in html and "<ins><bdi>new words</bdi></ins>" in html
    both = gallery([Card("kept", None, "web words", "new words", 0.9, 0.8, keep_web=True, keep_synthetic=True)], 0.5)
    assert "<ins><bdi>web words" in both and "<ins><bdi>new words" in both


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
    stems = {"results", "scores", "roc", "kinds", "losses-models-noisy", "losses-models-bootstrapped", "flow"}
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


def test_data_uri_is_a_png_and_refuses_other_arrays():
    uri, size = data_uri(np.zeros((48, 40, 3), np.uint8))
    assert uri.startswith("data:image/png;base64,") and size == (40, 48)
    with pytest.raises(DataError, match="uint8"):
        data_uri(np.zeros((8, 8, 3), np.float32))
