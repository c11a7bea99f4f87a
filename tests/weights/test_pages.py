"""A checkpoint is handed over, not copied: its tensors lie in its file; what was copied from gives its pages back."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from capfilt.weights import store
from capfilt.weights.checkpoint import open_checkpoint
from capfilt.weights.pages import file_spans, forget, in_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing says where files are mapped")


class New(TorchDispatchMode):
    """Bytes of CPU memory that operations fill anew, by the operation's name; but for what checks look at."""

    CHECKS = ("aten.abs.default",)  # in the look for what is not a number

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        own = isinstance(out, Tensor) and out.device.type == "cpu" and not in_file(out.contiguous(), file_spans())
        if own and out.nbytes and out.dtype != torch.bool and str(func) not in self.CHECKS:
            self.bytes[str(func)] = self.bytes.get(str(func), 0) + out.nbytes
        return out


def resident(path: Path) -> int:
    """Bytes of a file that this process holds in memory."""
    parts = re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    return sum(1024 * int(re.findall(r"^Rss: +(\d+)", part, re.MULTILINE)[0]) for part in parts if str(path) in part)


@pytest.mark.parametrize(("layout", "kind"), [("capfilt", "pretrain"), ("huggingface", "caption"), ("official", "vqa")])
def test_tensors_lie_in_their_file_and_nothing_is_filled_twice(layout, kind, build, words, tmp_path):
    model = build(kind)
    store.save_as(model, words, tmp_path, layout)
    with New() as new:
        opened = open_checkpoint(tmp_path)
    spans = file_spans()
    copied = {name: x for name, x in opened.model.state_dict().items() if not in_file(x, spans)}
    fused = ("qkv", "kv")
    if layout == "capfilt":
        assert not copied
    else:
        assert copied and all(name.split(".")[-2] in fused for name in copied), copied.keys()
    wanted = sum(x.nbytes for x in copied.values())
    assert new.bytes == ({"aten.cat.default": wanted} if wanted else {})


def test_our_own_folder_is_mapped_by_the_plain_reader_too(build, words, tmp_path):
    store.save(build("match"), words, tmp_path)
    model, _ = store.load(tmp_path)
    spans = file_spans()
    assert all(in_file(x, spans) for x in model.state_dict().values())


def test_pages_are_given_back_and_read_again(tmp_path):
    path, values = tmp_path / "x.safetensors", torch.arange(2**20)
    save_file({"a": values, "b": values + 1}, path)
    held = load_file(path)
    assert held["a"].sum() + len(values) == held["b"].sum()  # both are read
    before = resident(path)
    given = forget([held["a"], values])
    assert held["a"].nbytes - 2 * 4096 <= given <= held["a"].nbytes
    assert resident(path) <= before - given
    assert torch.equal(held["a"], values) and torch.equal(held["b"], values + 1)


def test_memory_of_ones_own_is_left_alone():
    values = torch.arange(2**20)
    assert forget([values, torch.empty(8, device="meta")]) == 0 and values[-1] == 2**20 - 1
