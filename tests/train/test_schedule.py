"""Learning rates at the points that define them."""

import pytest

from capfilt.train.schedule import Schedule


def test_cosine_warms_up_and_falls_to_the_floor():
    s = Schedule(rate=1.0, warmup=10, warmup_start=0.0, floor=0.1)
    assert [s.at(i, 110, 50) for i in (0, 5, 10, 60)] == pytest.approx([0, 0.5, 1.0, 0.55])
    assert s.at(109, 110, 50) == pytest.approx(0.1, abs=1e-3)


def test_epoch_decay_is_the_papers():
    s = Schedule("epoch_decay", rate=3e-4, floor=1e-6, warmup=3000, decay=0.9)
    assert s.at(1500, 10**6, 10_000) == pytest.approx((1e-6 + 3e-4) / 2)
    assert [s.at(e * 10_000, 10**6, 10_000) for e in (1, 2)] == pytest.approx([3e-4 * 0.9, 3e-4 * 0.81])
    assert s.at(90 * 10_000, 10**6, 10_000) == 1e-6
    assert s.at(1500, 10**6, 1000) == pytest.approx(3e-4 * 0.9)  # warm-up lives inside the first epoch


def test_epoch_cosine_moves_in_whole_epochs():
    s = Schedule("epoch_cosine", rate=1e-5)
    assert s.at(99, 500, 100) == s.at(0, 500, 100) == 1e-5
    assert s.at(400, 500, 100) == pytest.approx(1e-5 * (1 + -0.80901699) / 2)
