"""What the verbs around a cleaning run refuse before any work is done, and how they leave."""

import pytest

from capfilt.recipes import cleaning, looking


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    def worked(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr(cleaning, "clean", worked)
    monkeypatch.setattr(looking, "duplicates", lambda *_: [{"keep": "a.jpg", "others": ["b.jpg"]}])


MODELS = ("--captioner", "c", "--filter", "f")


def test_a_run_is_no_part_of_its_collection(capfilt, tmp_path):
    for out in (tmp_path, tmp_path / "." / "x" / ".."):
        code, _, err = capfilt("clean", str(tmp_path), "-o", str(out), *MODELS)
        assert code == 2 and "is the collection itself" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, told",
    [
        (["--policy", "foo"], "--policy foo: there are blip,"),
        (["--threshold", ".2", "--top", ".3"], "only replace-low heeds both"),
    ],
)
def test_flags_of_a_policy_that_do_not_fit(capfilt, tmp_path, words, told):
    code, _, err = capfilt("clean", str(tmp_path), "-o", str(tmp_path / "run"), *MODELS, *words)
    assert code == 2 and told in err


def test_dedup_writes_over_nothing_but_its_own(capfilt, tmp_path):
    mine, link, own = tmp_path / "captions.jsonl", tmp_path / "link", tmp_path / "groups.jsonl"
    mine.write_text('{"file": "a.jpg"}\n')
    link.symlink_to(tmp_path / "elsewhere")
    for place in (mine, link, tmp_path):
        code, _, err = capfilt("dedup", str(tmp_path), "-o", str(place))
        assert code == 2 and str(place) in err
    assert mine.read_text() == '{"file": "a.jpg"}\n' and link.is_symlink()
    for _ in range(2):
        assert capfilt("dedup", str(tmp_path), "-o", str(own))[0] == 0
    assert own.read_text() == '{"keep": "a.jpg", "others": ["b.jpg"]}\n'


def test_review_of_what_is_no_run_leaves_as_the_others_do(capfilt, tmp_path):
    assert capfilt("review", str(tmp_path))[0] == 4
