"""Groups of images that are or look the same: those that comparing all with all finds, however many are alike."""

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.clean import alike
from capfilt.clean.alike import near, same, stands


def by_comparing_all(hashes: np.ndarray, bits: int) -> list[int]:
    """Connected components in the plainest way: from each place, whatever can be reached."""
    label = [-1] * len(hashes)
    for start in range(len(hashes)):
        todo = [start] if label[start] < 0 else []
        while todo:
            one = todo.pop()
            if label[one] < 0:
                label[one] = start
                todo += [j for j, other in enumerate(hashes) if (int(hashes[one]) ^ int(other)).bit_count() <= bits]
    return label


def partition(groups) -> set[frozenset[int]]:
    found: dict[int, set[int]] = {}
    for place, group in enumerate(groups):
        found.setdefault(int(group), set()).add(place)
    return {frozenset(places) for places in found.values()}


def families(seed: int, count: int, size: int, flips: int) -> np.ndarray:
    """Hashes around `count` centres, each a few flipped bits away from its centre."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, count, np.uint64)
    hashes = np.repeat(centres, size)
    for _ in range(flips):
        hashes ^= np.uint64(1) << rng.integers(0, 64, len(hashes)).astype(np.uint64)
    return rng.permutation(hashes)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(0, 4))
def test_exactly_what_comparing_all_finds(seed, bits, flips):
    hashes = families(seed, 12, 8, flips)
    assert partition(near(hashes, bits)) == partition(by_comparing_all(hashes, bits))


@pytest.mark.parametrize("bits", [2, 4])
def test_long_runs_of_one_key_too(bits, monkeypatch):
    rng = np.random.default_rng(0)
    low = rng.integers(0, 2**24, 300).astype(np.uint64)  # distinct, but alike in 40 bits: one run for most keys
    assert partition(near(low, bits)) == partition(by_comparing_all(low, bits))
    monkeypatch.setattr(alike, "LONG", 1)
    assert partition(near(low, bits)) == partition(by_comparing_all(low, bits))


def test_the_bound_is_the_bound():
    apart = [np.uint64(0), np.uint64(0b1111), np.uint64(0b1111_0000_1111), np.uint64(2**64 - 1)]
    assert len(partition(near(np.array(apart), 4))) == 2  # a chain of three, each 4 from the next, and one far off
    assert len(partition(near(np.array(apart), 3))) == 4


@pytest.mark.parametrize("n", [0, 1])
def test_few_or_none(n):
    assert len(near(np.zeros(n, np.uint64), 3)) == n
    assert len(stands(np.zeros(n, np.int64), np.ones(n, np.int64), pa.array(["a"] * n, pa.string()))) == n
    assert len(same(pa.array(["a"] * n, pa.string()))) == n


def test_equal_values_share_a_number():
    values = pa.chunked_array([["x", "y"], ["x", "z", "y"]])
    assert partition(same(values)) == {frozenset({0, 2}), frozenset({1, 4}), frozenset({3})}


def test_the_largest_stands_then_the_first_by_id():
    groups = np.array([7, 7, 7, 3, 3, 9])
    areas = np.array([10, 30, 30, 5, 5, 1])
    found = stands(groups, areas, pa.array(["a", "c", "b", "e", "d", "f"]))
    assert found.tolist() == [2, 2, 2, 4, 4, 5]


def test_order_does_not_matter():
    hashes, areas = families(1, 20, 5, 1), np.random.default_rng(1).integers(1, 4, 100)
    ids = np.array([f"{i:03d}" for i in range(100)])
    shuffled = np.random.default_rng(2).permutation(100)
    one = ids[stands(near(hashes, 3), areas, pa.array(ids))]
    other = ids[shuffled][stands(near(hashes[shuffled], 3), areas[shuffled], pa.array(ids[shuffled]))]
    assert one[shuffled].tolist() == other.tolist()


@pytest.mark.parametrize("kind", ["equal", "ball", "chain"])
def test_degenerate_crowds_do_not_blow_up(kind):
    n = 20_000
    hashes = {
        "equal": np.zeros(n, np.uint64),
        "ball": np.unique(families(3, 1, 2 * n, 3))[:n],  # thousands of hashes, all near each other
        "chain": np.arange(n, dtype=np.uint64),  # every key but the lowest blocks is one run
    }[kind]
    started = time.perf_counter()
    assert len(partition(near(hashes, 4))) == 1
    assert time.perf_counter() - started < 5
