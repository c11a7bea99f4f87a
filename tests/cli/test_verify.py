"""`capfilt verify` on the command line: what it can compare, what it says, and when it leaves with 1."""

import pytest

from capfilt.cli import verify as verb
from capfilt.errors import CheckFailed, ConfigError
from capfilt.predict import use, verify
from capfilt.predict.verify import Checked


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A model that need not be there; the calls that would load it."""
    calls = []
    monkeypatch.setattr(use, "load", lambda name, **how: calls.append((name, how)))
    (tmp_path / "demo.jpg").write_bytes(b"picture")
    return calls


def test_answers_that_differ_leave_with_1(asked, monkeypatch, tmp_path, capsys):
    found = [Checked("ask", "how many dogs?", "1", got, got == "1", "tests") for got in ("1", "2")]
    monkeypatch.setattr(verify, "verify", lambda *_: iter(found))
    with pytest.raises(CheckFailed, match="1 of 1 answers differ"):
        verb.verify("Salesforce/blip-vqa-base", image=tmp_path / "demo.jpg")
    said = capsys.readouterr().out
    assert said.count("same  ") == 1 and said.count("DIFFERS  ") == 1 and "got       2" in said
    monkeypatch.setattr(verify, "verify", lambda *_: iter(found[:1]))
    verb.verify("downloads/model_base_capfilt_large.pth", image=tmp_path / "demo.jpg")
    assert [how["px"] for _, how in asked] == [None, 384]  # a pre-trained one is asked at the demo's size


def test_what_nobody_published_answers_for_is_a_mistake(asked):
    for name in ("Salesforce/blip-itm-large-coco", "mine.pth"):
        with pytest.raises(ConfigError, match="no published answers are known"):
            verb.verify(name)
    assert not asked
