"""What a plan says follows from what it measured: rows, shares, hours, disk; and it leaves nothing behind."""

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from capfilt.clean.columns import INTAKE
from capfilt.clean.config import CleanConfig
from capfilt.clean.rules import Rules
from capfilt.clean.stages import Models
from capfilt.errors import ConfigError, NothingToRead
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.recipes import plan as recipe
from capfilt.recipes.plan import plan
from capfilt.runtime import rng
from capfilt.weights import store

PICTURES = 12


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    """A captioner and a filter as small as can be."""
    folder = tmp_path_factory.mktemp("models")
    words = TextTokenizer.train(["a red cube beside a blue ball"], 64)
    for name, roles in (("captioner", ("speak",)), ("filter", ("read", "look"))):
        config = dataclasses.replace(PRESETS["tiny"], roles=roles, queue=0)
        store.save(Blip(config.with_words(words)), words, folder / name)
    return Models(str(folder / "captioner"), str(folder / "filter"))


def jpeg(i: int, side: int = 96) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rng("picture", i).integers(0, 256, (side, side, 3), np.uint8)).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Pictures with captions; of 15 rows one is no picture and two are missing."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(PICTURES):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    (folder / "broken.jpg").write_bytes(b"no picture")
    names = [*(f"{i}.jpg" for i in range(PICTURES)), "broken.jpg", "gone.jpg", "gone too.jpg"]
    rows = [json.dumps({"image": name, "caption": f"a red cube {i}"}) for i, name in enumerate(names)]
    (folder / "captions.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def test_a_plan_adds_up(photos: Path, models: Models, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(photos.rglob("*"))
    found = plan(CleanConfig(str(photos), models, workers=0), devices=4, price=2.0)
    assert (found.rows, found.counted, found.sample, found.judged) == (15, "all", 15, PICTURES)
    assert found.readable == pytest.approx(12 / 15) and found.ruled_out == pytest.approx(0)
    assert found.reasons == {"missing_file": 2, "not_an_image": 1}
    rates = found.rows_per_s
    assert set(rates) == {"names", "look", "judge"}
    each_s = 1 / rates["names"] + 1 / rates["look"] + 12 / 15 / rates["judge"]
    assert found.hours == pytest.approx(15 * each_s / 3600)
    assert found.hours_each == pytest.approx(found.hours / 4) and found.cost == pytest.approx(2 * found.hours)
    assert found.memory_mib > 100 and 0 < found.disk_mib < 1
    assert sorted(photos.rglob("*")) == before and not list(tmp_path.iterdir())
    assert json.loads(json.dumps(dataclasses.asdict(found)))["rows"] == 15


def test_what_the_rules_rule_out_is_not_paid_for(photos: Path, models: Models):
    found = plan(CleanConfig(str(photos), models, rules=Rules(min_px=1000), workers=0))
    assert (found.judged, found.ruled_out) == (0, pytest.approx(12 / 15)) and "judge" not in found.rows_per_s


def test_a_sample_is_drawn_by_its_seed_from_all_over(photos: Path, models: Models):
    def drawn(seed: int) -> list[str]:
        draw = recipe._Draw(seed, 5)
        config = CleanConfig(str(photos), dataclasses.replace(models, seed=seed))
        assert recipe._counted(config, draw)[:2] == (15, "all")
        return draw.drawn["key"].to_pylist()

    assert drawn(0) == drawn(0) and len({tuple(drawn(seed)) for seed in range(4)}) == 4
    often = np.zeros(40)
    for seed in range(300):
        draw = recipe._Draw(seed, 10)
        for start in range(0, 40, 16):
            rows = [{"id": str(i)} for i in range(start, min(start + 16, 40))]
            draw.see(pa.Table.from_pylist(rows, schema=INTAKE))
        often[[int(i) for i in draw.drawn["id"].to_pylist()]] += 1
    assert draw.rows == 40 and often.min() > 45 and often.max() < 110  # 75 is the mean, 7.5 the deviation


def shards(folder: Path, rows: tuple[int, ...]) -> None:
    folder.mkdir()
    for shard, count in enumerate(rows):
        with tarfile.open(folder / f"{shard:02d}.tar", "w") as tar:
            for i in range(count):
                for name, data in ((f"{i}.jpg", jpeg(i)), (f"{i}.txt", b"a red cube")):
                    header = tarfile.TarInfo(name)
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))


def test_without_time_the_files_read_stand_for_the_others(tmp_path: Path, models: Models, monkeypatch):
    shards(tmp_path / "shards", (10,) * 8)
    config = CleanConfig(str(tmp_path / "shards"), models)
    times = iter([0.0, *(10.0 * i for i in range(1, 100))])
    monkeypatch.setattr(recipe.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(recipe, "Progress", _Silent)
    draw = recipe._Draw(0, 4)
    assert recipe._counted(config, draw)[:2] == (80, "estimated") and draw.rows == 40
    monkeypatch.setattr(recipe, "NAMES_S", -1.0)
    times = iter(range(100))
    assert recipe._counted(config, recipe._Draw(0, 4))[:2] == (10, "at least")


class _Silent:
    def __init__(self, *_: object) -> None: ...
    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None: ...
    def update(self, _: int) -> None: ...


def test_photos_without_captions_are_counted_in_parts(tmp_path: Path, models: Models, monkeypatch):
    monkeypatch.setattr(recipe, "NAMES_AT_ONCE", 5)
    for i in range(PICTURES):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    (tmp_path / "3.txt").write_text("a red cube")
    draw = recipe._Draw(0, 100)
    assert recipe._counted(CleanConfig(str(tmp_path), models), draw)[:2] == (PICTURES, "all")
    assert sorted(filter(None, draw.drawn["texts"].to_pylist())) == [["a red cube"]]


def test_what_cannot_be_planned(tmp_path: Path, models: Models, photos: Path):
    (tmp_path / "captions.jsonl").write_text('{"image": "gone.jpg", "caption": "a cube"}\n')
    with pytest.raises(NothingToRead, match=r"none of 1 sampled rows can be used; the first: .*gone\.jpg"):
        plan(CleanConfig(str(tmp_path), models))
    for wrong in ({"sample": 0}, {"devices": 0}, {"price": -1.0}):
        with pytest.raises(ConfigError, match="are needed"):
            plan(CleanConfig(str(photos), models), **wrong)
