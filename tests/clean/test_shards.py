"""Shards: computed once, in order, found again, never mixed."""

import pytest

from capfilt.clean.shards import in_shards, to_do
from capfilt.errors import CheckFailed, ConfigError


class Work:
    """Numbers its rows and remembers what it was asked for; dies when it reaches `dies_at`."""

    def __init__(self, dies_at: int | None = None):
        self.asked: list[tuple[int, int]] = []
        self.dies_at = dies_at

    def __call__(self, start: int, stop: int) -> list[dict]:
        if self.dies_at is not None and stop > self.dies_at:
            raise KeyboardInterrupt
        self.asked.append((start, stop))
        return [{"row": i, "text": f"row {i} with a \u2028 in it"} for i in range(start, stop)]


def run(out, work: Work, total: int = 10, about: str = "one", size: int = 4) -> list[int]:
    return [row["row"] for row in in_shards(out, "test", total, work, {"about": about}, size)]


def test_goes_on_with_the_first_missing_shard(tmp_path):
    assert to_do(tmp_path, 10, 4)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Work(dies_at=8))
    rest = Work()
    assert to_do(tmp_path, 10, 4)
    assert run(tmp_path, rest) == list(range(10))
    assert rest.asked == [(8, 10)]
    assert not to_do(tmp_path, 10, 4)
    assert run(tmp_path, Work(dies_at=0)) == list(range(10))  # nothing is computed any more


def test_read_and_computed_rows_are_the_same(tmp_path):
    first = in_shards(tmp_path, "test", 3, Work(), {})
    assert in_shards(tmp_path, "test", 3, Work(dies_at=0), {}) == first


@pytest.mark.parametrize("changed", [{"about": "two"}, {"total": 9}, {"size": 5}])
def test_rows_of_other_settings_are_never_mixed_in(tmp_path, changed):
    run(tmp_path, Work())
    with pytest.raises(ConfigError, match="other settings"):
        run(tmp_path, Work(), **changed)


def test_a_shard_that_lost_rows_is_named(tmp_path):
    run(tmp_path, Work())
    shard = tmp_path / "00001.jsonl"
    shard.write_text("".join(shard.read_text(encoding="utf-8").splitlines(keepends=True)[:1]), encoding="utf-8")
    with pytest.raises(CheckFailed, match=r"00001.jsonl: holds \d rows for 4 images"):
        run(tmp_path, Work())


def test_no_rows_at_all(tmp_path):
    assert run(tmp_path, Work(), total=0) == [] and not to_do(tmp_path, 0, 4)
