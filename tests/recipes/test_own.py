"""The demo's own models: trained once, gone on with after a stop, waited for, and taken from a finished demo."""

import shutil
import threading
from pathlib import Path

import pytest

from capfilt.config import to_dict
from capfilt.files import lease, read_json, write_json
from capfilt.predict.use import load
from capfilt.recipes import own
from capfilt.recipes.demo import smoke


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> Path:
    """An empty working directory, a cache in it, and settings that train in seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPFILT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own, "demo", smoke)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Both models, made once for the tests that only look at them."""
    folder = tmp_path_factory.mktemp("trained") / "cycle"
    cycle = own.Cycle(smoke(), folder)
    _ = cycle.filter, cycle.captioner
    write_json(folder / "config.json", to_dict(smoke()))
    return folder


@pytest.fixture
def untrainable(monkeypatch) -> None:
    """Nobody may train."""
    monkeypatch.setattr(own, "Cycle", lambda *_: pytest.fail("these models are there"))


def test_both_are_trained_once_and_load(here: Path, monkeypatch):
    assert "to be trained, once" in own.about() and str(here / "cache") in own.about()
    captioner, filter = own.captioner(), own.filter()
    assert captioner.parent == filter.parent and captioner.is_relative_to(here / "cache")
    assert "caption" in load(captioner).abilities and "match" in load(filter).abilities
    monkeypatch.setattr(own, "Cycle", lambda *_: pytest.fail("trained again"))
    assert (own.captioner(), own.filter()) == (captioner, filter)
    assert str(captioner.parents[1]) in own.about() and "drawn scenes, not photographs" in own.about()


def test_what_was_trained_before_a_stop_stays(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(own.Cycle, "captioner", property(lambda _: (_ for _ in ()).throw(KeyboardInterrupt)))
        with pytest.raises(KeyboardInterrupt):
            own.captioner()
    before = (own.cache() / own.FILTER / "done.json").stat().st_mtime_ns
    assert not (own.cache() / own.CAPTIONER / "done.json").exists()
    assert (own.captioner() / "done.json").is_file()
    assert (own.filter() / "done.json").stat().st_mtime_ns == before


def test_a_finished_demo_is_taken(here: Path, trained: Path, untrainable):
    shutil.copytree(trained, here / "runs/demo")
    assert own.captioner() == here / "runs/demo" / own.CAPTIONER and str(here / "runs/demo") in own.about()


@pytest.mark.parametrize("change", ["a trial", "another world", "photographs", "not a run's", "unfinished"])
def test_what_is_no_finished_demo_is_left(here: Path, trained: Path, untrainable, change: str):
    shutil.copytree(trained, own.cache())
    shutil.copytree(trained, here / "runs/demo")
    about = here / "runs/demo/config.json"
    config = read_json(about)
    changes = {
        "a trial": {"pretrain": {**config["pretrain"], "steps": 2}},
        "another world": {"world": {**config["world"], "noise": 0.1}},
        "photographs": {"world": None},
    }
    if change in changes:
        write_json(about, config | changes[change])
    else:
        (about if change == "not a run's" else here / "runs/demo" / own.FILTER / "done.json").unlink()
    assert own.filter() == own.cache() / own.FILTER


def test_a_second_process_waits(trained: Path, untrainable, monkeypatch):
    held, asked = threading.Event(), threading.Event()

    def first() -> None:
        with lease(own.cache()):
            held.set()
            asked.wait(10)
            shutil.copytree(trained, own.cache(), dirs_exist_ok=True, ignore=lambda *_: [".lock"])

    other = threading.Thread(target=first)
    other.start()
    held.wait(10)
    monkeypatch.setattr(own.time, "sleep", lambda _: asked.set())
    with pytest.warns(UserWarning, match="another process trains these models; waiting"):
        assert own.captioner() == own.cache() / own.CAPTIONER
    other.join()


def test_where_the_cache_is(here: Path, monkeypatch):
    name = own.cache().name
    assert own.cache() == here / "cache" / name and name.startswith("demo-")
    monkeypatch.delenv("CAPFILT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "xdg"))
    assert own.cache() == here / "xdg/capfilt" / name
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert own.cache() == Path.home() / ".cache/capfilt" / name
    monkeypatch.setattr(own, "demo", lambda: smoke(seed=1))
    assert own.cache().name != name
