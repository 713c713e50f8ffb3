"""Download a published file atomically, and verify its digest."""

from __future__ import annotations

import http.client
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

from zoo.errors import WeightsError
from zoo_harness.util.atomic_files import replacing
from zoo_harness.util.digests import digest_mismatch


def fetch(url: str, target: Path, *, sha256: str | None = None, md5: str | None = None, timeout: float = 30.0) -> None:
    """Download ``url`` to ``target`` and create its folder; ``target`` appears only after its digest is verified.

    ``sha256`` may be only the first digits of the published SHA-256. ``timeout`` is the number of seconds to wait for
    data from the server. Raises :class:`OSError` if the download fails or cannot be stored, and
    :class:`~zoo.errors.WeightsError` if the digest is not the published digest.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as part:
        _download(url, part, timeout)
        if fault := digest_mismatch(part, sha256=sha256, md5=md5):
            raise WeightsError(f"digest of {url} is wrong: {fault}; nothing was saved", code="digest-mismatch", url=url)


def _download(url: str, part: Path, timeout: float) -> None:
    request = Request(url, headers={"User-Agent": "blockzoo"})  # noqa: S310 - a record's URL is https
    try:
        with urlopen(request, timeout=timeout) as response, part.open("wb") as file:  # noqa: S310
            announced = response.headers.get("Content-Length")
            shutil.copyfileobj(response, file, 2**20)
            received = file.tell()
    except http.client.HTTPException as error:  # not a subclass of OSError
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    # When a response is read in blocks, http.client reports no error if the response ends early.
    if announced is not None and received != int(announced):
        raise ConnectionError(f"the connection was cut after {received:,} of {int(announced):,} bytes")
