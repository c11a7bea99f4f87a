"""What every task says of itself, and answers to choose from."""

import json

import pytest

from capfilt.cli import evaluate as verb
from capfilt.data.annotations import Stated
from capfilt.errors import DataError
from capfilt.predict.decode import BEAM, NOCAPS
from capfilt.predict.faithful import Faithful
from capfilt.recipes.measured_tasks import TASKS, read_candidates


def test_the_verb_has_every_task():
    assert [*verb.Task] == [*TASKS]


def test_the_originals_settings():
    assert TASKS["caption"]().decoding == BEAM != NOCAPS
    assert [TASKS[name]().k for name in ("retrieval", "vqa", "video-retrieval", "video-qa")] == [256, 128, 128, 128]
    assert [TASKS[name]().frames for name in ("video-retrieval", "video-qa")] == [8, 16]
    assert all(task.file and {*task.switches} <= vars(Faithful()).keys() for task in TASKS.values())


def test_images_of_a_statement():
    pair = Stated("a", "b", "so", None, "0", "0")
    assert TASKS["nlvr2"]().images(pair) == ("a", "b") and not TASKS["nlvr2"]().known(pair)
    assert TASKS["nlvr2"]().images(Stated("a", None, "so", False, "0", "0")) == ("a",)


@pytest.mark.parametrize("text", ["yes\n\n no \n", json.dumps(["yes", "no"]), '\ufeff["yes", "no"]'])
def test_candidates(tmp_path, text):
    (tmp_path / "list").write_text(text, "utf-8")
    assert read_candidates(str(tmp_path / "list")) == ["yes", "no"]


@pytest.mark.parametrize(("text", "why"), [("[1]", "other things than texts"), ("[1", "not JSON")])
def test_no_candidates(tmp_path, text, why):
    (tmp_path / "list").write_text(text)
    with pytest.raises(DataError, match=why):
        read_candidates(str(tmp_path / "list"))
