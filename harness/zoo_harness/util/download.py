"""Fetches a published file whole or not at all, and proves by its digest that it is the published one."""

from __future__ import annotations

import http.client
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

from zoo.errors import WeightsError
from zoo_harness.util.atomic_files import replacing
from zoo_harness.util.digests import digest_mismatch

SILENCE_SECONDS = 30.0


def fetch(
    url: str, target: Path, *, sha256: str | None = None, md5: str | None = None, silence: float = SILENCE_SECONDS
) -> None:
    """Download ``url`` to ``target``, whose folder is made; the name appears only when the whole file is proven.

    ``sha256`` may be the beginning of the digest. ``silence`` is how many seconds the server may say nothing. Raises
    :class:`OSError` where the file cannot be had or stored, the connection is cut or the server answers with an error,
    and :class:`~zoo.errors.WeightsError` where the server gives another file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as part:
        _copy(url, part, silence)
        fault = digest_mismatch(part, sha256=sha256, md5=md5)
        if fault:
            raise WeightsError(f"{url}: the server gave another file, its {fault}; nothing was kept")


def _copy(url: str, part: Path, silence: float) -> None:
    request = Request(url, headers={"User-Agent": "blockzoo"})  # noqa: S310 - a record's URL is https
    try:
        with urlopen(request, timeout=silence) as answer, part.open("wb") as file:  # noqa: S310
            announced = answer.headers.get("Content-Length")
            shutil.copyfileobj(answer, file, 2**20)
            got = file.tell()
    except http.client.HTTPException as error:  # not a kind of OSError
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    # Read in pieces, an answer that ends early is no error to http.client.
    if announced is not None and got != int(announced):
        raise ConnectionError(f"the connection was cut after {got:,} of {int(announced):,} bytes")
