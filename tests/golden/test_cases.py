"""The original's own numbers: every case of BLIP passes, every other one says that it is not built yet."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from capfilt.evaluate.golden import check

RULES = "loss rules modern and torch110"
BUILT = {  # case → how much is compared at least, and what is said about it
    "00_layouts": (13, "names, shapes and trained parameters"),
    "01_vit": (7, ""),
    "02_retrieval_itm": (17, ""),
    "03_captioner": (300, RULES),
    "04_vqa": (400, RULES),
    "05_nlvr2": (300, ""),
    "06_pretrain": (5000, RULES),
    "07_retrieval_train": (1600, ""),
    "08_preprocess": (700, "images resized as Pillow"),
    "09_hf_caption": (24, ""),
    "09_hf_itm": (12, ""),
    "09_hf_vqa": (35, ""),
    "11_two_processes": (1200, RULES),
}


@pytest.fixture(scope="module")
def cases(shared: Path) -> Path:
    folder = shared / "golden"
    if not folder.is_dir():
        pytest.skip(f"no reference cases in {folder}")
    return folder


@pytest.mark.parametrize("name", BUILT)
def test_ours_are_the_originals_numbers(cases, shared, name):
    (line,) = check(cases / "blip" / name, shared / "data" / "vocab" / "bert-base-uncased-vocab.txt")
    assert line.status == "pass", line.detail
    assert line.name == name and line.worst is not None and line.worst <= 1
    count, said = BUILT[name]
    assert said in line.detail
    assert any(int(part.split()[0]) >= count for part in line.detail.split("; ") if part.endswith("numbers compared"))


def test_no_case_is_left_out(cases):
    assert sorted(BUILT) == sorted(folder.name for folder in (cases / "blip").iterdir() if folder.is_dir())


def test_what_is_not_built_says_so(cases):
    others = list(check(cases / "albef"))
    assert others and {(line.status, line.worst) for line in others} == {("not built yet", None)}
    assert [line.name for line in others] == sorted(line.name for line in others)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("03_captioner", "out.sample.ids"),
        ("03_captioner", "out.sample.kept_ids"),
        ("03_captioner", "out.sample.kept_probs"),
        ("03_captioner", "out.sample.n_kept"),
        ("09_hf_caption", "out.hf.eps5.greedy_prompt_ids"),
        ("09_hf_itm", "out.hf.eps6.itm_cls"),
        ("09_hf_vqa", "out.official.beam3_ids_enc"),
    ],
)
def test_one_number_that_is_moved_shows(cases, tmp_path, case, name):
    folder = tmp_path / case
    shutil.copytree(cases / "blip" / case, folder, copy_function=shutil.copyfile)
    path = folder / "io.safetensors"
    tensors = load_file(path)
    tensors[name].view(-1)[5] += 1
    save_file(tensors, path)
    (line,) = check(folder)
    assert line.status == "fail" and name in line.detail
