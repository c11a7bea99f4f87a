"""Rounds by turns: disturbed ones are done again while there is time, and the ratio is the median of theirs."""

import pytest

from capfilt.recipes.bench import timing
from capfilt.recipes.bench.timing import Spare, Timed, by_turns, ratio, rounds_for


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    timed = Timed({"ours": [1.0, 2.0, 4.0], "peer": [3.0, 4.0, 4.0]}, disturbed=1)
    assert ratio(timed, "peer") == {
        "ours_s": 2.0,
        "peer_s": 4.0,
        "ratio": 2.0,
        "low": 1.0,
        "high": 3.0,
        "rounds": 3,
        "disturbed": 1,
    }


@pytest.fixture
def clock(monkeypatch):
    """A clock that works move on, alone or beside others."""
    now = {"own": 0.0, "others": 0.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now["own"])
    monkeypatch.setattr(timing.time, "process_time", lambda: now["own"])
    monkeypatch.setattr(timing, "busy_s", lambda: now["own"] + now["others"])
    monkeypatch.setattr(timing.gc, "collect", int)  # it would be most of these tests' time
    return now


def work(clock, seconds, disturbed=()):
    """Takes so long at its n-th call, and others a second beside it where n is in `disturbed`."""
    calls = iter(range(10**6))

    def run():
        n = next(calls)
        clock["own"] += seconds(n)
        clock["others"] += n in disturbed

    return run


def test_a_disturbed_round_is_done_again(clock):
    works = {"ours": work(clock, lambda n: n + 1, disturbed={1, 3}), "peer": work(clock, lambda n: 2 * n + 2)}
    spare = Spare(100)  # round 1 takes 6 seconds, of which one is much; round 3 takes 12
    timed = by_turns("row", works, 3, spare)
    assert timed == Timed({"ours": [1, 3, 4], "peer": [2, 6, 8]}, 0)
    assert spare.seconds == 94


@pytest.mark.parametrize(("spare", "again"), [(100, 6), (5, 2), (0, 0)])
def test_but_not_for_ever(clock, spare, again):
    works = {"ours": work(clock, lambda n: 1, disturbed=range(99)), "peer": work(clock, lambda n: 1)}
    left = Spare(spare)
    timed = by_turns("row", works, 3, left)
    assert timed.disturbed == 3 and len(timed.seconds["ours"]) == 3
    assert left.seconds == spare - 2 * again


def test_what_others_do_within_a_clock_tick_is_no_disturbance(clock):
    def tick():
        clock["own"] += 0.001
        clock["others"] += 0.01

    spare = Spare(100)
    assert by_turns("row", {"ours": tick}, 2, spare).disturbed == 0 and spare.seconds == 100


def test_long_rounds_are_few():
    assert [rounds_for(s) for s in (0.1, 2.9, 3, 24, 25, 100)] == [9, 9, 5, 5, 3, 3]
