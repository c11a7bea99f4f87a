"""What one bootstrap run is: the data, the models, the three trainings, the decoding and the rule."""

from dataclasses import dataclass, field
from typing import Literal

from capfilt.clean.decide import Rule
from capfilt.data.world import WorldConfig
from capfilt.inputs.augment import AugmentConfig
from capfilt.models.blip import CAPTIONING, RETRIEVAL, BlipConfig, Objective
from capfilt.predict.decode import Decoding
from capfilt.train.loop import TrainConfig

Variant = Literal["noisy", "bootstrapped", "filter", "captioner", "human", "share", "repeated"]

VARIANTS: dict[str, str] = {
    "noisy": "human pairs and all web pairs: what everyone has at the start",
    "bootstrapped": "human pairs, kept web texts, kept synthetic texts (captioner and filter)",
    "filter": "human pairs and kept web texts (filter only)",
    "captioner": "human pairs, all web texts, all synthetic texts (captioner only)",
    "human": "control: human pairs alone",
    "share": "control: the noisy set with human pairs drawn as often as in the bootstrapped set",
    "repeated": "control: the noisy set repeated to the length of the bootstrapped set (the paper's Table 12)",
}


@dataclass(frozen=True)
class Sources:
    """Real collections; None anywhere means the drawn world.

    pairs, human, test: paths. Without `test`, a tenth of the human pairs is held out of all training.
    store_px: side at which pictures are kept; a little more than the model's where training crops.
    """

    pairs: str | None = None
    human: str | None = None
    test: str | None = None
    store_px: int = 160


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
