"""Fetches a published file whole or not at all, and proves by its MD5 that it is the one that was published."""

from __future__ import annotations

import http.client
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

from zoo.errors import WeightsError
from zoo_harness.util.atomic_files import replacing
from zoo_harness.util.digests import md5_of

SILENCE_SECONDS = 30.0


def fetch(url: str, target: Path, md5: str, silence: float = SILENCE_SECONDS) -> None:
    """Download ``url`` to ``target``, whose folder is made; the name appears only when the whole file is proven.

    ``silence`` is how many seconds the server may say nothing. Raises :class:`OSError` where the file cannot be had
    or stored, the connection is cut or the server answers with an error, and :class:`~zoo.errors.WeightsError` where
    the server gives another file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as part:
        _copy(url, part, silence)
        found = md5_of(part)
        if found != md5:
            raise WeightsError(f"{url}: the server gave a file with MD5 {found}, published is {md5}; nothing was kept")


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
