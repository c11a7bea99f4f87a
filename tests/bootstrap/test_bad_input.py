"""Bad input: a row that cannot be used is counted with its reason; input that cannot be used as a whole is one line."""

import json
from collections import Counter

import pytest

from capfilt.files import read_json, read_jsonl

from .conftest import SMALL, bad_rows, encoded, odd_images, picture, write_pairs, write_rows

KEYS = ["noisy", "bootstrapped", "gain", "filter", "counts", "seconds", "peak_mib"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """40 good pairs, odd ones, one image with two texts, and every kind of bad row: (folder, rows, reasons)."""
    folder = tmp_path_factory.mktemp("mixed") / "web"
    rows = write_pairs(folder, 40)
    rows += [{"file": name, "captions": ["an odd picture"]} for name in odd_images(folder)]
    (folder / "double.png").write_bytes(encoded(picture(99)))
    rows.append({"file": "double.png", "captions": ["one text", "another text"]})
    bad = bad_rows(folder)
    write_rows(folder, [*rows, *(row for row, _ in bad)])
    return folder, len(rows) + 1 + len(bad), Counter(reason for _, reason in bad)


@pytest.fixture(scope="module")
def run(capfilt, mixed, tmp_path_factory):
    """The finished run on those pairs, with every variant."""
    folder = tmp_path_factory.mktemp("run")
    write_pairs(folder / "human", 20, captions=2)
    (folder / "human/000.png").write_bytes(b"<html>")
    arms = [word for arm in ("filter", "captioner", "human", "share", "repeated") for word in ("--ablate", arm)]
    out = folder / "out"
    done = capfilt.run(*SMALL, "--pairs", mixed[0], "--human", folder / "human", "--out", out, *arms)
    assert done.code == 0, done.err
    assert done.err == ""
    return out, done


def test_the_counts_add_up_to_the_rows_given(run, mixed):
    found = read_json(run[0] / "results.json")
    assert list(found) == KEYS
    counts = found["counts"]
    assert list(counts) == ["in", "kept", "replaced", "dropped", "failed"]
    assert counts["in"] == mixed[1] == sum(counts.values()) - counts["in"]
    assert counts["failed"] == mixed[2].total()
    assert found["noisy"]["truth"] is None and found["bootstrapped"]["coverage"] is None
    assert all(value is None for value in found["filter"].values())
    assert 0 <= found["noisy"]["tr1"] <= 1 and found["seconds"] > 0


def test_every_bad_row_stands_in_the_ledger_with_its_reason(run, mixed):
    rows = read_jsonl(run[0] / "ledger.jsonl")
    assert len(rows) == mixed[1] and len({row["key"] for row in rows if row["decision"] != "failed"}) == 49
    failed = [row for row in rows if row["decision"] == "failed"]
    assert Counter(row["reason"].partition(":")[0] for row in failed) == mixed[2]
    assert all(len(row["reason"].partition(": ")[2]) > 5 for row in failed)
    judged = [row for row in rows if row["decision"] != "failed"]
    assert all("the filter gave the web text" in row["reason"] for row in judged)


def test_the_page_shows_them(run, mixed):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert f"{mixed[2].total()}" in page and "the file is not an image" in page
    # lost teachers are told, too
    assert "1 row of the human pairs could not be used: the file is not an image (1)." in page
    assert "Among the web pairs: 1 with an animated image, of which the first frame is used." in page
    assert run[1].out.splitlines()[-1] == str(run[0] / "report.html")


def test_every_variant_was_compared(run):
    told = {path.stem: read_json(path)["summary"] for path in (run[0] / "evaluated").glob("*.json")}
    assert set(told) == {"noisy", "bootstrapped", "filter", "captioner", "human", "share", "repeated"}
    sizes = {name: facts["rows"] for name, facts in read_json(run[0] / "stages.json").items() if "rows" in facts}
    ledger = read_jsonl(run[0] / "ledger.jsonl")
    kept = {text: sum(row[f"keep_{text}"] for row in ledger) for text in ("web", "synthetic")}
    web, human = sum(row["decision"] != "failed" for row in ledger), sizes["models/human"]
    assert sizes["models/noisy"] == human + web
    assert sizes["models/filter"] == human + kept["web"]
    assert sizes["models/bootstrapped"] == sizes["models/repeated"] == human + sum(kept.values())
    assert sizes["models/captioner"] <= human + 2 * web


def test_report_and_eval_read_the_finished_run(capfilt, run, tmp_path):
    out, _ = run
    (out / "report.html").unlink()
    assert capfilt.run("report", out).code == 0
    assert (out / "report.html").is_file()
    own = capfilt.run("eval", out, "--json")
    assert own.code == 0, own.err
    for name, scores in json.loads(own.out).items():
        assert scores == read_json(out / f"evaluated/{name}.json")["summary"]  # measured again, the same
    write_pairs(tmp_path / "other", 5)
    table = capfilt.run("eval", out, "--pairs", tmp_path / "other")
    assert table.code == 0 and "itc_tr1" in table.out and "bootstrapped" in table.out
    single = capfilt.run("eval", out / "models/human", "--json")
    assert single.code == 0 and list(json.loads(single.out)) == ["human"]


def test_train_alone(capfilt, pairs, tmp_path):
    assert capfilt.run("train", "smoke", "--out", tmp_path / "run").code == 0
    assert read_json(tmp_path / "run/evaluated/noisy.json")["summary"].keys() >= {"tr1", "cider", "truth"}
    early = capfilt.run("report", tmp_path / "run")
    assert early.code == 3 and "no finished run" in early.line()
    given = ["--pairs", pairs / "web", "--human", pairs / "human"]
    real = capfilt.run("train", "smoke", "--out", tmp_path / "real", *given)
    assert real.code == 0, real.err


def make(folder, what):
    """A path for --pairs and one for --human, of the kind `what`."""
    good, other = folder / "good", folder / "other"
    write_pairs(good, 14)
    if what == "one human image":
        write_pairs(other, 1, captions=5)
        return good, other
    if what != "a missing folder":
        other.mkdir()
    if what == "images without captions":
        (other / "a.png").write_bytes(encoded(picture(0)))
    if what == "no usable image":
        (other / "a.png").write_bytes(b"<html>")
        write_rows(other, [{"file": "a.png", "captions": ["a"]}])
    return other, good


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a missing folder", "no such file or folder"),
        ("an empty folder", "an empty folder"),
        ("images without captions", "images but no captions"),
        ("no usable image", "none of 1 rows can be used (not_an_image)"),
        ("one human image", "1 human pairs are too few: 8 are held back to place the filter's bar, 2 to compare with"),
    ],
)
def test_input_that_cannot_be_used_is_3(capfilt, tmp_path, what, line):
    pairs, human = make(tmp_path, what)
    done = capfilt.run(*SMALL, "--pairs", pairs, "--human", human, "--out", tmp_path / "run")
    assert done.code == 3, done.err
    assert line in done.line() and done.out == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--pairs", "."], "--pairs needs --human"),
        (["--set", "web=one"], "expected int, got 'one'"),
        (["--set", "pretrain.stepz=1"], "Did you mean 'steps'?"),
        (["--recipe", "nosuch"], "is not one of demo, smoke"),
        (["--out", "/dev/null/run"], "there is a file where the folder should be"),
    ],
)
def test_settings_that_cannot_be_are_2(capfilt, words, line):
    done = capfilt.run(*SMALL, *words)
    assert done.code == 2, done.err
    assert line in done.line()


def test_nothing_to_evaluate(capfilt, tmp_path):
    missing = capfilt.run("eval", tmp_path / "nowhere")
    assert missing.code == 3 and "not a bootstrap run" in missing.line()
    assert not (tmp_path / "nowhere").exists()
    write_pairs(tmp_path / "pairs", 3)
    assert capfilt.run("eval", tmp_path / "pairs", "--pairs", tmp_path / "pairs").code == 4  # no model there


def test_batches_of_one_image_and_a_filter_that_drops_all(capfilt, tmp_path):
    """Two human images to learn from, nine texts each: some batches show one image alone. Then no text is kept."""
    write_pairs(tmp_path / "web", 8)
    write_pairs(tmp_path / "human", 4, captions=9)
    sets = ["held_back=0", "rule.kind=fixed", "rule.threshold=2", "learn_rule.kind=fixed", "filter.batch=2"]
    words = [word for item in sets for word in ("--set", item)]
    human, out = tmp_path / "human", tmp_path / "run"
    arms = ["--ablate", "share", "--ablate", "repeated"]
    done = capfilt.run(*SMALL, "--pairs", tmp_path / "web", "--human", human, "--out", out, *words, *arms)
    assert done.code == 0, done.err
    assert read_json(out / "results.json")["counts"] == {"in": 8, "kept": 0, "replaced": 0, "dropped": 8, "failed": 0}


def test_a_collection_that_changed_under_its_run(capfilt, tmp_path):
    """The run refuses to mix two states of it; `eval`, which mixes nothing, reads it anew."""
    rows = write_pairs(tmp_path / "web", 12)
    write_pairs(tmp_path / "human", 20)
    line = [*SMALL, "--pairs", tmp_path / "web", "--human", tmp_path / "human", "--out", tmp_path / "run"]
    assert capfilt.run(*line).code == 0
    measure = ["eval", tmp_path / "run", "--pairs", tmp_path / "web", "--json"]
    before = capfilt.run(*measure).out
    write_rows(tmp_path / "web", rows[:6])
    assert capfilt.run(*measure).out != before
    again = capfilt.run(*line, "--ablate", "human")
    assert again.code == 2 and "changed since this run read it" in again.line()
