"""Images that are the same, or look the same, put into groups, and the one of each that stands for the rest.

Two hashes of 64 bits that differ in at most d are found without comparing all with all: cut into d + s blocks, they
agree in at least s of these. So every choice of s blocks is a key; only hashes with equal keys are compared (Manku,
Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007). The result is exact for every d.

Shapes: N rows, P pairs.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64, UInt64

HASH = 64  # bits
LONG = 64  # hashes of one key: from there one after another spreads to those near it, instead of all pairs


def same(values: pa.Array | pa.ChunkedArray) -> Int64[np.ndarray, "n"]:
    """A group number for each value: equal where the values are."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pc.cast(whole.dictionary_encode(null_encoding="encode").indices, pa.int64()).to_numpy()


def near(hashes: UInt64[np.ndarray, "n"], bits: int) -> Int64[np.ndarray, "n"]:
    """A group number for each hash: equal where steps of at most `bits` bits lead from one to the other."""
    distinct, which = np.unique(hashes, return_inverse=True)
    label = np.arange(len(distinct))
    if bits:
        for mask in _masks(len(distinct), bits):
            for a, b in _close(distinct, mask, bits):
                label = _joined(label, a, b)
    return label[which]


def stands(
    groups: Int64[np.ndarray, "n"], areas: Int64[np.ndarray, "n"], ids: pa.Array | pa.ChunkedArray
) -> Int64[np.ndarray, "n"]:
    """For each row the place of the one that stands for its group: the largest, of equals the first by id.

    A row that is alone stands for itself.
    """
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    several = np.flatnonzero(size[group] > 1)
    rows = pa.table({"group": group[several], "area": areas[several], "id": ids.take(pa.array(several))})
    order = pc.sort_indices(rows, [("group", "ascending"), ("area", "descending"), ("id", "ascending")]).to_numpy()
    ranked = several[order]
    best = np.full(len(size), -1)
    best[group[ranked][::-1]] = ranked[::-1]  # the last one written is the first of its group
    place = np.arange(len(groups))
    place[several] = best[group[several]]
    return place


def _masks(n: int, bits: int) -> list[np.uint64]:
    """The keys: every choice of s blocks, for the s that leaves the least to do with n evenly spread hashes."""

    def work(s: int) -> float:
        return math.comb(bits + s, s) * (16 * n + n * n / 2 ** (HASH * s / (bits + s)))  # sorting, comparing

    chosen = min(range(1, 9), key=work)
    ends = np.linspace(0, HASH, bits + chosen + 1).astype(int).tolist()
    blocks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(ends)]
    return [np.uint64(sum(some)) for some in itertools.combinations(blocks, chosen)]


def _close(hashes: np.ndarray, mask: np.uint64, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (P,), (P,) of places whose hashes have equal keys and differ in at most `bits`; chains for long runs."""
    key = hashes & mask
    order = np.argsort(key)
    key, hashes = key[order], hashes[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    lengths = np.diff(np.r_[starts, len(key)])
    for start, length in zip(starts[lengths > LONG], lengths[lengths > LONG], strict=True):
        a, b = _spread(hashes[start : start + length], bits)
        yield order[start + a], order[start + b]
    last = np.repeat(np.where(lengths > LONG, -1, starts + lengths - 1), lengths)  # of the run that a place is in
    at, step = np.flatnonzero(np.arange(len(key)) < last), 1
    while len(at):
        close = np.bitwise_count(hashes[at] ^ hashes[at + step]) <= bits
        yield order[at[close]], order[at[close] + step]
        step += 1
        at = at[at + step <= last[at]]


def _spread(hashes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that join what hangs together, each hash compared with those only that nothing has reached yet."""
    a, b, left = [np.zeros(0, int)], [np.zeros(0, int)], np.arange(len(hashes))
    while len(left):
        reached, left = [left[0]], left[1:]
        while reached and len(left):
            one = reached.pop()
            close = np.bitwise_count(hashes[left] ^ hashes[one]) <= bits
            if close.any():
                found, left = left[close], left[~close]
                a.append(np.full(len(found), one))
                b.append(found)
                reached.extend(found)
    return np.concatenate(a), np.concatenate(b)


def _joined(label: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Labels (N,), each a place that is its own label, with the groups of every pair made one."""
    while True:
        low, high = np.minimum(label[a], label[b]), np.maximum(label[a], label[b])
        apart = low != high
        if not apart.any():
            return label
        a, b = a[apart], b[apart]
        np.minimum.at(label, high[apart], low[apart])
        while not np.array_equal(label, shorter := label[label]):
            label = shorter
