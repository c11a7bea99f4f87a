"""Where and how the work runs: device, threads, allocator, seeds, memory. torch is imported only when asked for."""

import contextlib
import ctypes
import functools
import hashlib
import math
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capfilt.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch

CPU_SIDE, GPU_SIDE = 1024, 4096  # of the square matmul that the limit is measured by
WORTH = 1.2  # times faster than fp32 a precision has to be
MALLOPT = {-3: 32 << 20, -1: 512 << 20}  # M_MMAP_THRESHOLD (the most there is) and M_TRIM_THRESHOLD, in bytes
ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def derive(*parts: object) -> int:
    """A 63-bit seed from anything printable, so that a row's randomness hangs on the row alone.

    >>> derive(0, "row-17") == derive(0, "row-17") != derive(1, "row-17")
    True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def rng(*parts: object) -> "np.random.Generator":
    """A numpy generator seeded by `derive(*parts)`."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(derive(*parts)))


def generator(*parts: object) -> "torch.Generator":
    """A CPU torch generator seeded by `derive(*parts)`."""
    import torch

    return torch.Generator().manual_seed(derive(*parts))


def device() -> "torch.device":
    """The accelerator if there is one, else the CPU; the first of CAPFILT_DEVICE where that is set.

    What learns or answers asks here before it begins, so threads and allocator are seen to (`calm_allocator`,
    `fit_threads`).
    """
    import torch

    calm_allocator()
    fit_threads()
    name = os.environ.get("CAPFILT_DEVICE", "").partition(",")[0].strip()
    if not name:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"CAPFILT_DEVICE={name}: torch cannot use it here ({reason})") from None
    return found


@functools.cache
def calm_allocator() -> bool:
    """Has glibc keep up to half a GiB of freed memory; without, activations are given back and faulted in again.

    Returns whether it was done: not with another libc. An allocator that is preloaded in its place is left as it is.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, size) == 1 for option, size in MALLOPT.items())


def allocator(maps: Path = Path("/proc/self/maps")) -> str:
    """The allocator of this process, and whether it is calm, where that can be told."""
    with contextlib.suppress(OSError):
        loaded = maps.read_text(encoding="utf-8", errors="replace")
        for name in ALLOCATORS:
            if f"lib{name}" in loaded:
                return name
        if "libc.so.6" in loaded:
            return "glibc, keeps freed memory" if calm_allocator.cache_info().currsize else "glibc, as it comes"
    return "the system's"


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may keep busy: those it may run on, or fewer where a control group grants less time.

    CAPFILT_CORES says it for processes that share a machine. root: where `proc` and `sys` are.
    """
    share = os.environ.get("CAPFILT_CORES", "")
    if share.isdigit() and int(share):
        return int(share)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return allowed
    granted = [float(allowed)]
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        here = top / path.lstrip("/")
        granted += [_granted(folder) for folder in (here, *here.parents) if folder.is_relative_to(top)]
    return max(1, math.ceil(min(granted)))


def _granted(group: Path) -> float:
    """Cores' worth of time that one control group has: version 2 writes `quota period`, version 1 a file of each."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            words = " ".join((group / name).read_text(encoding="ascii") for name in names).split()
            quota, period = map(float, words)  # a ValueError where it says `max`
            return quota / period if quota > 0 else math.inf
    return math.inf


@functools.cache
def fit_threads() -> None:
    """Has torch start no more threads than there are usable cores; a quota that is overdrawn stops them all.

    Once a process, so that a later `torch.set_num_threads` stands; with OMP_NUM_THREADS, never.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


@functools.cache
def matmul_speed(device: "torch.device", dtype: "torch.dtype", side: int | None = None) -> float:
    """FLOP/s of a `square` product, measured here once a process: the best of a few."""
    import torch

    gpu = device.type == "cuda"
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        product, flop = square(device, dtype, side or (GPU_SIDE if gpu else CPU_SIDE))
        product()
        times, seconds = 20 if gpu else 1, []
        for _ in range(5):
            wait(device)
            began = time.perf_counter()
            for _ in range(times):
                product()
            wait(device)
            seconds.append(time.perf_counter() - began)
    return flop * times / min(seconds)


def square(device: "torch.device", dtype: "torch.dtype", side: int) -> tuple[Callable[[], "torch.Tensor"], float]:
    """A product of square matrices and its floating-point operations; of int8 ones, integer operations."""
    import torch

    a = torch.randn(side, side, generator=generator("limit"))  # ones are easier on a GPU
    a = (a * 40 if dtype == torch.int8 else a).to(device, dtype)
    product = torch._int_mm if dtype == torch.int8 else torch.mm
    return lambda: product(a, a), 2 * side**3


def matmul_gain(device: "torch.device", dtype: "torch.dtype") -> float:
    """How many times faster than in fp32 this machine multiplies in `dtype`; not above `WORTH` it only emulates it."""
    import torch

    if device.type == "cpu" and dtype == torch.bfloat16 and not _onednn_has_bf16():
        return 0.0  # measuring that would take seconds
    return matmul_speed(device, dtype) / matmul_speed(device, torch.float32)


def _onednn_has_bf16() -> bool:
    import torch

    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def wait(device: "torch.device") -> None:
    """Until the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib() -> int:
    """Most memory this process and its largest finished child have held, in MiB."""
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return int((own + child) / unit)


def machine() -> dict[str, Any]:
    """What a measured number needs beside it: processor, cores, threads, instruction sets, torch."""
    import torch

    flags = ""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            if key.strip() == "flags":
                flags = value
                break
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": [name for name in known if f" {name}" in flags],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


class Terminated(BaseException):
    """SIGTERM arrived: save, say how to go on, leave with 143."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turns SIGTERM into `Terminated` inside the block, so that whoever holds state can save it."""

    def handler(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
