"""The drawn world: an endless, seeded source of small pictures with captions, and a web view whose noise is known.

Because the world knows what it drew, it can judge any caption. Two levels: `demo` (48 px, two objects, about 50
words; a model learns it in minutes) and `full` (one to four objects, fills, textures, synonyms, many relations).

Splits never share a scene, whatever the world's seed: a hash of a scene's content (what it shows and how it stands,
pixel jitter aside) decides which split may hold it, and a split redraws until the scene is its own.

    world = World(WorldConfig())
    scene = world.scene("human", 0)
    world.draw(scene), world.caption(scene, seed=0), world.full_caption(scene)
    world.web_text("web", 7)                              # the text that came with picture 7 of the web
    world.judge(scene, "a red ring above a heart").truth  # share of stated facts that are true
"""

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from capfilt.data.world_captions import Writer
from capfilt.data.world_draw import Painter
from capfilt.data.world_judge import Judgement, judge
from capfilt.data.world_noise import junk, one_wrong, padded
from capfilt.data.world_scene import Level, Scene, Thing, draw_lots
from capfilt.data.world_words import Lexicon
from capfilt.errors import ConfigError
from capfilt.runtime import derive

__all__ = ["SPLITS", "Judgement", "Scene", "Thing", "WebText", "World", "WorldConfig"]

Kind = Literal["clean", "padded", "swapped", "attribute", "junk"]
SPLITS: dict[str, tuple[float, float]] = {  # the part of the hash's range that each split owns
    "web": (0.0, 0.6),
    "human": (0.6, 0.8),
    "val": (0.8, 0.9),
    "test": (0.9, 1.0),
}
_LEAST_PX = {"demo": 32, "full": 64}
_HASHES = float(1 << 63)


@dataclass(frozen=True)
class WorldConfig:
    """level: demo or full. px: side of a picture (demo from 32, full from 64, both to 512).

    noise:   share of web texts that do not match their picture, in [0, 1].
    swapped, attribute, junk: how the noise divides (another picture's caption, one attribute wrong, no caption); sum 1.
    padded:  share of the matching web texts that stand inside padding, in [0, 1].
    """

    level: Level = "demo"
    px: int = 48
    seed: int = 0
    noise: float = 0.6
    swapped: float = 0.7
    attribute: float = 0.15
    junk: float = 0.15
    padded: float = 0.1

    def __post_init__(self) -> None:
        if self.level not in _LEAST_PX:
            raise ConfigError(f"world level {self.level!r} does not exist: choose demo or full")
        least = _LEAST_PX[self.level]
        if not least <= self.px <= 512:
            raise ConfigError(
                f"world px={self.px}: shapes of the {self.level} level need {least} to 512 px; set px={2 * least}"
            )
        for name in ("noise", "swapped", "attribute", "junk", "padded"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"world {name}={getattr(self, name)} is a share: give it a value from 0 to 1")
        if abs(self.swapped + self.attribute + self.junk - 1.0) > 1e-6:
            raise ConfigError(
                f"world swapped={self.swapped}, attribute={self.attribute}, junk={self.junk} divide the noise: "
                "make them sum to 1"
            )


@dataclass(frozen=True)
class WebText:
    """A web picture's text. match: whether all it states is true of the picture (padding states nothing)."""

    text: str
    kind: Kind
    match: bool


class World:
    """One world: same config, same pictures and texts.

    Raises ConfigError for a split that is not in SPLITS.
    """

    def __init__(self, config: WorldConfig):
        self.config = config
        self._lexicon = Lexicon(config.level)
        self._writer = Writer(self._lexicon)
        self._painter = Painter(config.px)

    def scene(self, split: str, index: int) -> Scene:
        """Scene `index` of a split; any index from 0 on."""
        if split not in SPLITS:
            raise ConfigError(f"the drawn world has no split {split!r}: choose one of {', '.join(SPLITS)}")
        low, high = SPLITS[split]
        rnd = random.Random(derive(self.config.seed, "scene", split, index))
        while True:
            scene = draw_lots(self.config.level, self.config.px, rnd)
            if low <= derive("split", scene.key) / _HASHES < high:
                return scene

    def draw(self, scene: Scene) -> np.ndarray:
        """The picture, (px, px, 3) uint8, antialiased."""
        return self._painter.draw(scene)

    def pictures(self, split: str, n: int, start: int = 0) -> np.ndarray:
        """Pictures `start` to `start + n - 1` of a split, (n, px, px, 3) uint8."""
        px = self.config.px
        out = np.empty((n, px, px, 3), np.uint8)
        for i in range(n):
            self._painter.draw(self.scene(split, start + i), out[i])
        return out

    def caption(self, scene: Scene, seed: int | str) -> str:
        """One human-style caption: true, partial, varied. Same scene and seed, same caption."""
        return self._writer.caption(scene, random.Random(derive("caption", seed, scene.key)))

    def full_caption(self, scene: Scene) -> str:
        """Every visible fact in one fixed wording; scenes that differ only in jitter share it."""
        return self._writer.full(scene)

    def web_text(self, split: str, index: int) -> WebText:
        """The text that the web gives picture `index` of a split, and what is wrong with it."""
        config, scene = self.config, self.scene(split, index)
        rnd = random.Random(derive(config.seed, "web text", split, index))
        if rnd.random() >= config.noise:
            text = self.caption(scene, rnd.getrandbits(40))
            if rnd.random() < config.padded:
                return WebText(padded(text, rnd), "padded", True)
            return WebText(text, "clean", True)
        kind = rnd.choices(("swapped", "attribute", "junk"), (config.swapped, config.attribute, config.junk))[0]
        if kind == "swapped":
            return WebText(self._elsewhere(split, scene, rnd), "swapped", False)
        if kind == "attribute":
            return WebText(self._one_wrong(scene, rnd), "attribute", False)
        return WebText(junk(rnd), "junk", False)

    def judge(self, scene: Scene, text: str) -> Judgement:
        """What `text` states, and how much of it holds in `scene`. Any text will do, a model's stammer too."""
        return judge(self._lexicon, scene, text)

    def words(self) -> list[str]:
        """Every word a caption can contain, sorted. Web texts hold others too (padding, junk)."""
        return self._writer.words()

    def _elsewhere(self, split: str, scene: Scene, rnd: random.Random) -> str:
        """A caption of another scene of the split that does not happen to be true here."""
        while True:
            text = self.caption(self.scene(split, rnd.getrandbits(40)), rnd.getrandbits(40))
            if self.judge(scene, text).truth < 1.0:
                return text

    def _one_wrong(self, scene: Scene, rnd: random.Random) -> str:
        while True:
            text = one_wrong(self._lexicon, scene, self.caption(scene, rnd.getrandbits(40)), rnd)
            if text is not None:
                return text
