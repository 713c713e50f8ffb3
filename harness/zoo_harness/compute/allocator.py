"""Keep freed memory for the next batch.

By default glibc returns large freed blocks to the system at once. A network allocates and frees the same large
activations for every batch, so each batch pays for fresh, zeroed pages again: three to six times the time of the
network itself on a virtual machine (benchmarks/README.md).
"""

from __future__ import annotations

import ctypes

# From malloc.h; the names are those of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP_BLOCKS_UP_TO = (2**30, 2**25)  # bytes; the second is the maximum of older releases of glibc
_NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have glibc keep the memory that this process frees; return false with another C library.

    The setting is for the whole process, so commands make it and the Python API does not.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    keeps_large_blocks = any(mallopt(_M_MMAP_THRESHOLD, size) for size in _KEEP_BLOCKS_UP_TO)
    return bool(keeps_large_blocks and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))
