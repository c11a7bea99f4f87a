"""What every test shares: shapes are checked while tests run, and real data is found or the test says why it is not."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
CHECKED = ("inputs", "blocks", "objectives", "models", "weights", "train", "predict", "evaluate")  # where tensors flow

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CAPFILT_PROGRESS"] = "none"


def check_shapes() -> None:
    """Checks every annotation in those rooms at every call; an int may stand for a float, as type checkers hold too."""
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "capfilt")
    assert not loaded, f"imported before their shapes could be checked: {loaded}"
    checker = ModuleType("shape_checker")  # the hook takes a name that can be imported, not an object
    vars(checker)["check"] = beartype(conf=BeartypeConf(is_pep484_tower=True))
    sys.modules[checker.__name__] = checker
    install_import_hook([f"capfilt.{room}" for room in CHECKED], f"{checker.__name__}.check")


check_shapes()


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
