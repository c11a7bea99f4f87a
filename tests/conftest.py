"""What every test shares: shapes are checked while tests run, and real data is found or the test says why it is not."""

import os
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
# The rooms where tensors flow. Below them stand files that name torch only for type checkers.
CHECKED = ("inputs", "blocks", "objectives", "models", "weights", "train", "predict", "evaluate")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CAPFILT_PROGRESS"] = "none"
loaded = sorted(name for name in sys.modules if name.split(".")[:1] == ["capfilt"])
assert not loaded, f"imported before shapes could be checked: {loaded}"
install_import_hook([f"capfilt.{room}" for room in CHECKED], "beartype.beartype")


def find_shared() -> Path | None:
    """The folder of real data and reference cases: CAPFILT_SHARED, else ../shared beside the repository."""
    folder = Path(os.environ.get("CAPFILT_SHARED") or ROOT.parent / "shared")
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference cases; skips the test where there is none."""
    folder = find_shared()
    if folder is None:
        pytest.skip("no real data here: set CAPFILT_SHARED to a folder that holds data/ and golden/")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT
