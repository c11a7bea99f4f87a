"""Memory of mapped files: which tensors lie in a file's own pages, and giving back pages that are done with.

A mapped tensor takes memory once it is read. What was only copied from (q, k and v that became one tensor, the second
of two tied tables) would keep its pages as long as anything else of the same file is in use.
"""

import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

Span = tuple[int, int]  # first address, and the one behind the last


def file_spans() -> list[Span]:
    """Where this process has files mapped that it does not write back to; nothing where the system does not say."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    fields = (line.split(maxsplit=5) for line in lines)
    found = [addresses.partition("-") for addresses, mode, _, _, inode, *_ in fields if mode[3] == "p" and inode != "0"]
    return [(int(first, 16), int(last, 16)) for first, _, last in found]


def in_file(tensor: Tensor, spans: Iterable[Span]) -> bool:
    """Whether all of a tensor lies in one of the spans."""
    if tensor.device.type != "cpu":
        return False
    start, size = tensor.data_ptr(), tensor.nbytes
    return tensor.is_contiguous() and any(first <= start and start + size <= last for first, last in spans)


def forget(tensors: Iterable[Tensor]) -> int:
    """Gives back the pages that lie wholly within tensors of mapped files, and returns their bytes.

    Such a tensor may still be read: its pages come from the file again. One that was written to may not be given.
    Tensors in memory of their own are left alone.
    """
    spans, given = file_spans(), 0
    for tensor in tensors:
        if in_file(tensor, spans):
            page = mmap.PAGESIZE
            first, last = -(-tensor.data_ptr() // page) * page, (tensor.data_ptr() + tensor.nbytes) // page * page
            if first < last and _madvise(first, last - first) == 0:
                given += last - first
    return given


def _madvise(start: int, size: int) -> int:
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call(start, size, mmap.MADV_DONTNEED)
