"""Make glibc keep freed memory for the next batch of images.

By default, glibc returns large freed blocks to the operating system immediately. A network allocates and frees the same
large activations for every batch, so each batch must request new zeroed memory pages from the operating system. On a
virtual machine, obtaining the pages takes three to six times as long as the network itself (benchmarks/README.md).
"""

from __future__ import annotations

import ctypes

# Constants from malloc.h, under the names that mallopt(3) uses.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP_BLOCKS_UP_TO = (2**30, 2**25)  # bytes; old releases of glibc refuse the first value, but accept the second
_NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make glibc keep the memory that this process frees; return false if the C library is not glibc.

    The setting applies to the whole process. Therefore commands call this function, but the Python API does not.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # the C library is not glibc
        return False
    keeps_large_blocks = any(mallopt(_M_MMAP_THRESHOLD, size) for size in _KEEP_BLOCKS_UP_TO)
    return bool(keeps_large_blocks and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))
