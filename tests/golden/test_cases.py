"""The original's own numbers: every case that we can compute passes, every other one says that it is not built yet."""

from pathlib import Path

import pytest

from capfilt.weights.golden import check

BUILT = {
    "00_layouts": "names, shapes and trained parameters",
    "01_vit": "",
    "02_retrieval_itm": "",
    "03_captioner": "loss rules modern and torch110",
    "06_pretrain": "loss rules modern and torch110",
    "07_retrieval_train": "",
    "11_two_processes": "loss rules modern and torch110",
}


@pytest.fixture(scope="module")
def cases(shared: Path) -> Path:
    folder = shared / "golden"
    if not folder.is_dir():
        pytest.skip(f"no reference cases in {folder}")
    return folder


@pytest.mark.parametrize("name", BUILT)
def test_ours_are_the_originals_numbers(cases, name):
    (line,) = check(cases / "blip" / name)
    assert line.status == "pass", line.detail
    assert line.name == name and line.worst is not None and line.worst <= 1
    assert BUILT[name] in line.detail


def test_what_is_not_built_says_so(cases):
    (line,) = check(cases / "blip" / "05_nlvr2")
    assert (line.status, line.worst) == ("not built yet", None)
    others = list(check(cases / "albef"))
    assert others and {line.status for line in others} == {"not built yet"}
    assert [line.name for line in others] == sorted(line.name for line in others)
