"""Where and how the work runs: device, seeds, memory. torch is imported only when asked for."""

import contextlib
import hashlib
import os
import platform
import resource
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from capfilt.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch


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
    """The accelerator if there is one (CAPFILT_DEVICE overrides), else the CPU."""
    import torch

    name = os.environ.get("CAPFILT_DEVICE")
    if not name:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"CAPFILT_DEVICE={name}: torch cannot use it here ({reason})") from None
    return found


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
