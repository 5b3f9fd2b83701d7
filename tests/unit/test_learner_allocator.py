from __future__ import annotations

import ctypes

from learner.allocator import keep_freed_memory


def test_allocator_tells_a_c_library_that_can_be_told() -> None:
    """glibc takes both settings; another library is left alone, and that is said."""
    assert keep_freed_memory() == hasattr(ctypes.CDLL(None), "mallopt")
