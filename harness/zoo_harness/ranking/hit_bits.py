"""Encode per-image hits as hexadecimal text for records; two digits encode eight images."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.moments import Array


def pack_hits(hits: Array) -> str:
    """Return a boolean array (N,) as hexadecimal digits.

    >>> pack_hits(np.array([True, False, True, True]))
    'b0'
    """
    return np.packbits(hits).tobytes().hex()


def unpack_hits(text: str, count: int) -> Array:
    """Decode the first ``count`` booleans from hexadecimal digits that :func:`pack_hits` made.

    >>> unpack_hits("b0", 4).tolist()
    [True, False, True, True]
    """
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)
