"""`capfilt clean` end to end: files in, a decided ledger and its page out.

    capfilt bench --rows "clean-default clean-fp32 clean-bf16 clean-int8"   # some 40 minutes on two cores
    capfilt bench --rows clean-demo                                         # two, once the demo's models are there

Base models at 384 px with random weights, JPEG files of 640 x 480 that are drawn here, captions of equal length. The
peer decodes, captions and judges the same files eight at a time with `transformers`, and writes a line an image. Models
are opened before either side is timed, as for a collection that takes longer than that.

`clean-demo` holds the whole command, with the demo's own models, against the same models on pixels in memory: its ratio
is the share of the time that the models have.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from capfilt.clean.config import CleanConfig
from capfilt.clean.ledger import Ledger
from capfilt.clean.rules import Rules
from capfilt.clean.stages import TOGETHER, Models
from capfilt.data.world import World, WorldConfig
from capfilt.errors import CheckFailed
from capfilt.evaluate.model import at_px
from capfilt.files import write_jsonl
from capfilt.inputs.images import normalize
from capfilt.predict.capfilt import CapFilt
from capfilt.predict.decode import Decoding
from capfilt.predict.feeding import parts
from capfilt.predict.predictor import Predictor
from capfilt.recipes import own
from capfilt.recipes.bench.peers import WRITTEN, Shelf, dtype, their_capfilt, transformers_name
from capfilt.recipes.bench.rows import CAPFILT, UNLIKE, asking, texts_of_words
from capfilt.recipes.bench.work import Row, Work, late, need
from capfilt.recipes.cleaning import clean

PHOTO = (640, 480)
AT_ONCE = 8  # files, as a script would take them
EVERY_ROW = Rules(duplicates="off")  # no image is left out
LONG = Decoding(max_length=WRITTEN, min_length=WRITTEN, count_prompt=False)

Found = tuple[list[str], list[float]]  # texts written, probabilities of the web texts


def clean_base(shelf: Shelf, precision: str, peer_precision: str | None = None, images: int = 24) -> Work:
    """The whole command against a straightforward script on `transformers`."""
    if shelf.at_work:
        need(precision)
    captioner, judge = (str(shelf.checkpoint(kind)) for kind in CAPFILT)
    web, folder = texts_of_words(images), shelf.folder / f"photos-{images}"
    files = drawn(folder, web, WorldConfig(level="full", px=512), PHOTO)
    models = Models(captioner, judge, precision=precision, engine="torch", decoding=LONG)

    def check(mine: Found, other: Found) -> dict[str, Any]:
        lengths = [len(text.split()) for text in mine[0]]  # marks that were drawn among the words are not to be seen
        if max(lengths) != WRITTEN or sum(lengths) < 0.75 * WRITTEN * images:
            raise CheckFailed(f"captions of {min(lengths)} to {max(lengths)} words; both sides must write {WRITTEN}")
        return _alike(mine, other, UNLIKE[precision])

    script = late(partial(their_script, shelf, peer_precision or precision, files, web))
    peers = {f"{transformers_name()}, straightforward script": script}
    return Work(partial(cleaned, folder, models, shelf.folder), peers, check, {"images": images})


def clean_demo(shelf: Shelf, images: int = 4000) -> Work:
    """The whole command on drawn pictures against its models alone."""
    config = WorldConfig(level="demo", px=48)
    models = Models(str(own.captioner()), str(own.filter()))
    web, folder = [World(config).web_text("web", i).text for i in range(images)], shelf.folder / f"scenes-{images}"
    drawn(folder, web, config)

    def alone() -> Callable[[], Found]:
        opened = models.load(models.captioner), models.load(models.filter)
        both = CapFilt(*(Predictor(model.at_work, model.tokenizer) for model in opened))
        pixels = at_px(World(config).pictures("web", images), opened[0].px)

        def work() -> Found:
            found = [
                judged
                for part in parts(images, TOGETHER)
                for judged in both(pixels[part], [[text] for text in web[part]], range(images)[part], models.decoding)
            ]
            return [of.captions[0].text for of in found], [of.web[0].probability for of in found]

        return work

    check = partial(_alike, most=UNLIKE["fp32"])
    ours = partial(cleaned, folder, models, shelf.folder)
    return Work(ours, {"its models alone": late(alone)}, check, {"images": images})


def cleaned(source: Path, models: Models, within: Path) -> Found:
    """Runs the whole into a folder of its own and takes what it found from its ledger."""
    with TemporaryDirectory(dir=within) as out:
        clean(CleanConfig(str(source), models, rules=EVERY_ROW), Path(out))
        scores = pa.concat_tables(Ledger(Path(out)).tables("scores"))
        texts, web = scores["synthetic"].to_pylist(), scores["itm_web"].to_pylist()
        return [text for (text,) in texts], [score for (score,) in web]


def their_script(shelf: Shelf, precision: str, files: Sequence[Path], web: Sequence[str]) -> Callable[[], Found]:
    """Open, squash, caption, judge both texts, write it down: so many files at a time, one batch after the other."""
    writer, reader = (shelf.theirs(kind, precision) for kind in CAPFILT)
    judge = shelf.ours("match", precision)
    px, end, ids = judge.model.config.vit.px, judge.model.config.special.sep, asking(judge, list(web))

    def work() -> Found:
        texts: list[str] = []
        fits: list[float] = []
        for part in parts(len(files), AT_ONCE):
            pictures = [
                Image.open(file).convert("RGB").resize((px, px), Image.Resampling.BICUBIC) for file in files[part]
            ]
            pixels = normalize(np.stack([np.asarray(picture) for picture in pictures])).to(dtype(precision))
            rows, probabilities = their_capfilt(writer, reader, pixels, ids[part], end)
            texts += [judge.tokenizer.decode(row) for row in rows]
            fits += probabilities.tolist()
        write_jsonl(shelf.folder / "theirs.jsonl", [{"text": t, "itm": p} for t, p in zip(texts, fits, strict=True)])
        return texts, fits

    return work


def drawn(folder: Path, texts: Sequence[str], world: WorldConfig, size: tuple[int, int] | None = None) -> list[Path]:
    """A folder of pictures with a text each: JPEGs of that size, or without one PNGs as the world draws them."""
    files = [folder / f"{i:05d}.{'jpg' if size else 'png'}" for i in range(len(texts))]
    if not (folder / "metadata.jsonl").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for file, pixels in zip(files, World(world).pictures("web", len(files)), strict=True):
            picture = Image.fromarray(pixels)
            (picture.resize(size) if size else picture).save(file, quality=90)
        rows = [{"file_name": file.name, "text": text} for file, text in zip(files, texts, strict=True)]
        write_jsonl(folder / "metadata.jsonl", rows)
    return files


def _alike(mine: Found, other: Found, most: float) -> dict[str, Any]:
    if len(mine[1]) != len(other[1]):
        raise CheckFailed(f"{len(mine[1])} images on our side, {len(other[1])} on the other")
    off = max(abs(a - b) for a, b in zip(mine[1], other[1], strict=True))
    if not off <= most:
        raise CheckFailed(f"a web text's probability differs by {off:.2g}, more than {most}")
    return {"difference": float(f"{off:.2g}")}


CLEAN: dict[str, Row] = {
    "clean-default": Row(5.0, partial(clean_base, precision="auto", peer_precision="fp32")),
    "clean-fp32": Row(2.2, partial(clean_base, precision="fp32")),
    "clean-bf16": Row(2.2, partial(clean_base, precision="bf16")),
    "clean-int8": Row(8.0, partial(clean_base, precision="int8", peer_precision="fp32")),
    "clean-demo": Row(0.85, clean_demo),
}
