"""Memory that a step frees stays with the process: fetching it from the kernel anew costs a few percent of a step."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""

KEPT = 1 << 29
"""Bytes at the heap's end that are not given back, and size of a block from which on it is mapped by itself."""


def keep_freed_memory() -> bool:
    """Tell the C library not to give a step's buffers back; False where it is none that can be told."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(TRIM_THRESHOLD, KEPT), mallopt(MMAP_THRESHOLD, KEPT)])
