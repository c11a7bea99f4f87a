"""What one cleaning run is: the collection, the rules before the models, and the models. Policies are no part of it."""

from dataclasses import dataclass, field
from typing import Any

from capfilt.clean.rules import Rules
from capfilt.clean.stages import Models
from capfilt.config import to_dict
from capfilt.data.fetch import Fetching
from capfilt.errors import ConfigError

NEUTRAL = ("workers", "limit_s")  # no result depends on them


@dataclass(frozen=True)
class CleanConfig:
    """The settings of one run; they travel in its `run.json`.

    source:      what `data.sources.open_source` reads; captions are optional.
    image, text: columns, where the usual names do not fit.
    fetching:    how images are fetched that are URLs; they fail as `url` without it.
    shard_rows:  rows of a shard: what a kill can cost.
    workers:     processes that decode; None for one a core.
    limit_s:     seconds that one image may take to decode.
    """

    source: str
    models: Models
    image: str | None = None
    text: str | None = None
    fetching: Fetching | None = None
    rules: Rules = field(default_factory=Rules)
    shard_rows: int = 500
    workers: int | None = None
    limit_s: float = 60.0

    def __post_init__(self) -> None:
        if self.shard_rows < 1:
            raise ConfigError(f"shard_rows={self.shard_rows}: at least one row a shard is needed")

    def outcome(self) -> dict[str, Any]:
        """All that results hang on, as JSON."""
        return {name: value for name, value in to_dict(self).items() if name not in NEUTRAL}
