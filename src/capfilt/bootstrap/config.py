"""What one bootstrap run is: the data, the models, the three trainings, the decoding and the rule."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from capfilt.clean.decide import Rule
from capfilt.config import to_dict
from capfilt.data.world import WorldConfig
from capfilt.errors import ConfigError
from capfilt.inputs.augment import AugmentConfig
from capfilt.models.blip import CAPTIONING, RETRIEVAL, BlipConfig, Objective
from capfilt.predict.decode import Decoding
from capfilt.train.settings import TrainConfig, outcome

Variant = Literal["noisy", "bootstrapped", "filter", "captioner", "human", "share", "repeated"]

VARIANTS: dict[str, str] = {
    "noisy": "human pairs and all web pairs: what everyone has at the start",
    "bootstrapped": "human pairs, kept web texts, kept synthetic texts (captioner and filter)",
    "filter": "human pairs and kept web texts (filter only)",
    "captioner": "human pairs, all web texts, all synthetic texts, none of them filtered (captioner only)",
    "human": "control: human pairs alone",
    "share": "control: the first model's set with human pairs drawn as often as in the second's",
    "repeated": "control: the first model's set repeated to the length of the second's (the paper's Table 12)",
}


@dataclass(frozen=True)
class Sources:
    """Real collections; None anywhere means the drawn world.

    pairs, human, test: paths. Without `test`, a tenth of the human pairs is held out of all training.
    image, text: names of their columns, where the usual ones do not fit.
    store_px: side at which pictures are kept; a little more than the model's where training crops.
    """

    pairs: str | None = None
    human: str | None = None
    test: str | None = None
    image: str | None = None
    text: str | None = None
    mix: str | None = None
    store_px: int = 160

    def absolute(self) -> "Sources":
        """The same collections, findable from any folder; remote paths stay as they are."""
        paths = {name: getattr(self, name) for name in ("pairs", "human", "test")}
        here = {name: os.path.abspath(path) for name, path in paths.items() if path and "://" not in path}
        return dataclasses.replace(self, **here)


@dataclass(frozen=True)
class BootstrapConfig:
    """One run of the cycle.

    web, human, test: how many pictures of the drawn world each part has.
    held_back:    human pairs that no model learns from; they place the filter's bar.
    human_times:  how often the human pairs are repeated in what models are pre-trained on.
    vocabulary:   size of the WordPiece vocabulary that is learned from the training texts.
    pool, near:   shares of the filter's unmatched texts drawn from the web pool, and made by exchanging one word
                  (both 0 in the paper's recipe).
    filter_rounds: times the filter is tuned; each round after the first also learns from the web texts that the one
                  before lets through (1 in the paper's recipe).
    captioner_learns: `human` as in the paper, or `kept`: also from the web texts that the last filter lets through.
    learn_rule:   the bar for web texts that captioner and filter learn from.
    tied:         captioner and filter are one model, fine-tuned on all losses (the paper's Table 4).
    captions:     how models are made to speak when they are evaluated.
    rerank:       candidates per query that ITM re-ranks.
    """

    model: BlipConfig
    pretrain: TrainConfig
    captioner: TrainConfig
    filter: TrainConfig
    world: WorldConfig | None = None
    sources: Sources = field(default_factory=Sources)
    web: int = 12000
    human: int = 700
    held_back: int = 100
    test: int = 500
    human_times: float = 1.0
    vocabulary: int = 512
    max_length: int = 30
    augmentation: AugmentConfig | None = None
    objective: Objective = field(default_factory=Objective)
    captioner_objective: Objective = CAPTIONING
    filter_objective: Objective = RETRIEVAL
    pool: float = 0.0
    near: float = 0.0
    filter_rounds: int = 1
    captioner_learns: Literal["human", "kept"] = "human"
    learn_rule: Rule = field(default_factory=Rule)
    tied: bool = False
    decoding: Decoding = field(default_factory=Decoding)
    rule: Rule = field(default_factory=Rule)
    captions: Decoding = field(default_factory=lambda: Decoding(method="greedy", repetition_penalty=1.0))
    rerank: int = 64
    seed: int = 0

    def check(self) -> None:
        """Raises ConfigError for what would only come to light after hours."""
        sources = self.sources
        if sources.pairs is None and (sources.human or sources.test):
            raise ConfigError("--human and --test go with --pairs: without noisy pairs there is nothing to clean")
        if sources.pairs is not None and sources.human is None:
            raise ConfigError("--pairs needs --human: clean pairs that teach the captioner and the filter")
        if sources.pairs is None and self.world is None:
            raise ConfigError("nothing to learn from: give --pairs and --human, or leave the drawn world on")
        for name in ("filter_rounds", "rerank", "vocabulary"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.held_back < 1 and "human" in (self.rule.kind, self.learn_rule.kind):
            raise ConfigError("held_back=0: the rule `human` places its bar by held-back human pairs")
        if self.pool < 0 or self.near < 0 or self.pool + self.near > 1:
            raise ConfigError(f"pool={self.pool}, near={self.near}: shares that add up to at most 1")
        if self.max_length > self.model.text.positions:
            raise ConfigError(f"max_length={self.max_length}: the model has {self.model.text.positions} positions")

    def outcome(self) -> dict[str, Any]:
        """Everything that results depend on, as JSON: two runs with equal ones are the same run."""
        return outcome(to_dict(self))
