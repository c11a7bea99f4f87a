"""Tensors out of files: mapped where they can be, refused where they are not only tensors."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from capfilt.errors import WeightsError
from capfilt.weights.read import few, from_file, from_folder, pickled, state_of

HELD = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("held", [HELD, {"model": HELD, "epoch": 3, "config": {"lr": 1e-5}}], ids=["bare", "wrapped"])
def test_pickled_state_dicts_of_either_age(old, held, tmp_path):
    torch.save(held, tmp_path / "x.pth", _use_new_zipfile_serialization=not old)
    found = from_file(tmp_path / "x.pth")
    assert set(found) == set(HELD) and torch.equal(found["a.weight"], HELD["a.weight"])


def test_a_file_is_mapped_not_read(tmp_path):
    """Pages of it are then memory that the system may take back; what is written to a tensor stays out of the file."""
    torch.save({"x": torch.zeros(1 << 16)}, tmp_path / "x.pth")
    save_file({"x": torch.zeros(1 << 16)}, tmp_path / "x.safetensors")
    for path in (tmp_path / "x.pth", tmp_path / "x.safetensors"):
        before = path.read_bytes()
        found = from_file(path)["x"]
        assert str(path) in Path("/proc/self/maps").read_text()
        found.fill_(1)
        assert path.read_bytes() == before


def test_a_folder_takes_safetensors_before_pickle(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert from_folder(tmp_path)[1]["x"].item() == 0
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    path, found = from_folder(tmp_path)
    assert path.name == "model.safetensors" and found["x"].item() == 1


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"x": "a.safetensors", "gone": "a.safetensors"}}, "its shards lack 1 tensors: gone"),
        ({"weight_map": {"x": "../a.safetensors"}}, "no weight_map of files beside it"),
        ({"weight_map": ["x"]}, "no weight_map of files beside it"),
        ({}, "no weight_map of files beside it"),
    ],
)
def test_a_wrong_index(index, said, tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "a.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=said):
        from_folder(tmp_path)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_cut_off_file_says_so(old, kept, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(HELD, path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(WeightsError, match=r"x.pth: damaged or cut off") as error:
        pickled(path)
    assert "\n" not in str(error.value)


def test_what_is_no_state_dict(tmp_path):
    with pytest.raises(WeightsError, match=r"f: no state dict of tensors, bare or under 'model' \(it has a, b\)"):
        state_of({"a": 1, "b": torch.ones(1)}, "f")
    with pytest.raises(WeightsError, match=r"\(it has nothing\)"):
        state_of({"model": {}}, "f")
    with pytest.raises(WeightsError, match=r"x\.pth: no such file"):
        pickled(tmp_path / "x.pth")
    assert few({str(i): 0 for i in range(8)}) == "0, 1, 2, 3, 4, 5 and 2 more"
