"""Keeps memory that was freed, for the next batch.

glibc gives large blocks back to the system as soon as they are freed. A network allocates and frees the same large
activations for every batch, so each batch pays for fresh, zeroed pages again: three to six times the time of the
network itself where pages are dear, as on a virtual machine (benchmarks/README.md).
"""

from __future__ import annotations

import ctypes

# From malloc.h; the names are those of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP_BLOCKS_UP_TO = (2**30, 2**25)  # bytes; the second is the most that older releases of glibc take
_NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what this process frees; return whether there was a glibc to tell.

    The setting is for the whole process, so a command makes it and the library never does.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    keeps_large_blocks = any(mallopt(_M_MMAP_THRESHOLD, size) for size in _KEEP_BLOCKS_UP_TO)
    return bool(keeps_large_blocks and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))
