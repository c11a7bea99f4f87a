"""The demo's own captioner and filter, for whoever has named no other. They know drawn scenes, not photographs.

Where a demo has finished in `runs/demo` of the working directory, its two are taken. Else they lie in the cache
(CAPFILT_CACHE, else $XDG_CACHE_HOME/capfilt, else ~/.cache/capfilt), where the first who asks trains them.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from capfilt import __version__
from capfilt.bootstrap.config import BootstrapConfig
from capfilt.bootstrap.rounds import Cycle
from capfilt.config import fingerprint, from_dict
from capfilt.errors import BusyError, CapfiltError
from capfilt.files import lease, read_json
from capfilt.recipes.demo import demo

RUN = Path("runs/demo")
PARTS = CAPTIONER, FILTER = ("cleaners/captioner", "cleaners/filter")
KNOWN = "they know drawn scenes, not photographs"
MINUTES = "some five minutes on two cores"
WAIT_S = 1.0


def captioner() -> Path:
    """The folder of the captioner, for `capfilt.load`; trained now if need be, and the filter with it."""
    return _made() / CAPTIONER


def filter() -> Path:
    """The folder of the filter, as `captioner`."""
    return _made() / FILTER


def about() -> str:
    """One line: which models these are, and what they are good for."""
    where = _found() or f"to be trained, once, which takes {MINUTES}, and kept in {cache()}"
    return f"the demo's own captioner and filter ({where}): {KNOWN}"


def cache() -> Path:
    """Where these very models lie, or will."""
    named = os.environ.get("CAPFILT_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capfilt"
    mark = fingerprint({"settings": demo().outcome(), "capfilt": __version__})
    return Path(named or base).absolute() / f"demo-{mark}"


def _made() -> Path:
    return _found() or _trained()


def _found() -> Path | None:
    """The run that holds both, if there is one."""
    run = RUN.absolute()
    for folder in (run, cache()):
        whole = all((folder / part / "done.json").is_file() for part in PARTS)
        if whole and (folder != run or _is_demo(run)):
            return folder
    return None


def _is_demo(run: Path) -> bool:
    """Whether it is of the demo's world and model, learned as long: it may be a trial, or of someone's photographs."""
    try:
        config = from_dict(BootstrapConfig, read_json(run / "config.json"))
    except CapfiltError:
        return False
    own = demo(seed=config.seed)
    return (config.world, config.model) == (own.world, own.model) and config.pretrain.steps >= own.pretrain.steps


def _trained() -> Path:
    """Goes through the demo's cycle in the cache, as far as both; goes on where it was stopped before."""
    folder = cache()
    with _turn(folder):
        if _found() is None:
            cycle = Cycle(demo(), folder)
            _ = cycle.filter, cycle.captioner
    return folder


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Holds the folder, once whoever trains there now has finished."""
    with contextlib.ExitStack() as held:
        told = False
        while True:
            try:
                held.enter_context(lease(folder))
                break
            except BusyError:
                if not told:
                    warnings.warn(f"{folder}: another process trains these models; waiting for them", stacklevel=2)
                told = True
                time.sleep(WAIT_S)
        yield
