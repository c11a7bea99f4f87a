"""Threads fit what the machine grants, the allocator keeps what it freed, and the limit is measured once."""

import os
import subprocess
import sys

import pytest
import torch

from capfilt import runtime
from capfilt.runtime import (
    allocator,
    calm_allocator,
    device,
    fit_threads,
    matmul_gain,
    matmul_speed,
    square,
    usable_cores,
)


def groups(root, own: str, files: dict[str, str]):
    """A machine whose control groups say this."""
    for name, said in {"proc/self/cgroup": own, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(said)
    return root


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "1600000 100000"}, 8),
        (
            "5:memory:/m\n4:cpu,cpuacct:/c\n",
            {"cpu/c/cpu.cfs_quota_us": "150000", "cpu/c/cpu.cfs_period_us": "50000"},
            3,
        ),
        ("4:cpu:/c\n", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/c\n", {"cpu/c/cpu.cfs_quota_us": "-1", "cpu/c/cpu.cfs_period_us": "100000"}, 8),
        ("4:cpuset:/c\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("0::/\n", {}, 8),
    ],
)
def test_cores_are_those_that_a_control_group_grants(tmp_path, monkeypatch, own, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores(groups(tmp_path, own, files)) == cores


def test_cores_without_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert usable_cores(tmp_path) == 2


@pytest.mark.parametrize(("threads", "named", "left"), [(6, False, 2), (1, False, 1), (6, True, 6)])
def test_threads_come_down_to_the_cores_once(monkeypatch, threads, named, left):
    monkeypatch.setattr(runtime, "usable_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if named:
        monkeypatch.setenv("OMP_NUM_THREADS", "6")
    before = torch.get_num_threads()
    fit_threads.cache_clear()
    try:
        torch.set_num_threads(threads)
        device()
        assert torch.get_num_threads() == left
        torch.set_num_threads(5)
        fit_threads()
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)


FAULTS = """
import resource, sys, numpy
from capfilt.runtime import allocator, calm_allocator, device
if sys.argv[1] == "calm":
    device()
    assert calm_allocator()
for _ in range(40):
    if _ == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    whole = [numpy.ones(2**20) for _ in range(2)]
    del whole
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, allocator())
"""


@pytest.mark.skipif(allocator() != "glibc, as it comes", reason="another allocator than glibc's")
def test_a_calm_allocator_faults_no_more():
    """16 MiB freed and asked for again, 20 times: 4,096 pages each time, or none."""

    def faults(how: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        count, _, name = done.stdout.strip().partition(" ")
        return int(count), name

    calm, usual = faults("calm"), faults("as it comes")
    assert calm[0] < 1000 < usual[0]
    assert (calm[1], usual[1]) == ("glibc, keeps freed memory", "glibc, as it comes")


def test_elsewhere_the_allocator_is_left_alone(monkeypatch):
    for change in (("platform", "darwin"), ("platform", "linux")):
        calm_allocator.cache_clear()
        monkeypatch.setattr(sys, *change)
        if change[1] == "linux":
            monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _: object())  # another libc: no mallopt
        assert calm_allocator() is False
    calm_allocator.cache_clear()


@pytest.mark.parametrize("name", ["jemalloc", "tcmalloc", "mimalloc"])
def test_a_preloaded_allocator_is_known(tmp_path, name):
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 0 0 0 /lib/libc.so.6\n7f02-7f03 r-xp 0 0 0 /lib/lib{name}_minimal.so.4.5\n")
    assert allocator(maps) == name
    maps.write_text("7f00-7f01 r-xp 0 0 0 /lib/ld-musl-x86_64.so.1\n")
    assert allocator(maps) == allocator(tmp_path / "none") == "the system's"


@pytest.mark.parametrize(
    ("dtype", "of"), [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.int8, torch.int32)]
)
def test_the_square_is_of_its_precision(dtype, of):
    product, flop = square(torch.device("cpu"), dtype, 64)
    assert flop == 2 * 64**3 and product().dtype == of


def test_the_gain_of_a_precision_is_measured_unless_it_is_emulated(monkeypatch):
    speeds = {torch.float32: 100.0, torch.bfloat16: 190.0}
    monkeypatch.setattr(runtime, "matmul_speed", lambda _, dtype: speeds[dtype])
    for has, gain in ((True, 1.9), (False, 0.0)):
        monkeypatch.setattr(runtime, "_onednn_has_bf16", lambda has=has: has)
        assert matmul_gain(torch.device("cpu"), torch.bfloat16) == gain


def test_the_limit_is_measured_once(monkeypatch):
    monkeypatch.setattr(runtime, "CPU_SIDE", 64)
    for dtype in (torch.float32, torch.int8):
        matmul_speed.cache_clear()
        first = matmul_speed(torch.device("cpu"), dtype)
        assert 1e6 < first < 1e15
        assert matmul_speed(torch.device("cpu"), dtype) is first
    matmul_speed.cache_clear()
