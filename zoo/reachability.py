"""Whether a server can be asked at all, answered at once; plugins and harness both ask before they download."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


def network_advice() -> str:
    """What to do about a Hub out of reach: unset ``HF_HUB_OFFLINE`` where it is set, else connect.

    >>> "HF_HUB_OFFLINE" in network_advice()
    True
    """
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return "unset HF_HUB_OFFLINE to have it fetched"
    return "connect to the network (HF_HUB_OFFLINE=1 skips the attempt and uses what is cached)"


def why_unreachable(url: str) -> str | None:
    """Why the host of ``url`` is out of reach, or ``None`` if it may answer.

    Only whether the host's name resolves is looked at, which takes no time: the Hub's client would retry for some
    twenty seconds before it says the same. Behind a proxy names need not resolve on this machine, so nothing is
    checked.

    >>> why_unreachable("https://localhost/")
    """
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    host = urlsplit(url).hostname
    if host is None or {"http", "https", "all"} & getproxies().keys():
        return None
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return f"no network: host {host} does not resolve, {error.strerror or error}"
    return None
