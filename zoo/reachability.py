"""Check at once whether a server may be reachable; plugins and harness call this before they download."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


def network_advice() -> str:
    """Return advice for an unreachable Hub: unset ``HF_HUB_OFFLINE`` if it is set, otherwise connect.

    >>> "HF_HUB_OFFLINE" in network_advice()
    True
    """
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return "unset HF_HUB_OFFLINE to have it fetched"
    return "connect to the network (HF_HUB_OFFLINE=1 skips the attempt and uses what is cached)"


def why_unreachable(url: str) -> str | None:
    """Return the reason why the host of ``url`` is unreachable, or ``None`` if it may answer.

    Only the host's name is resolved, which takes no time: the Hub's client would retry for some twenty seconds before
    it fails. Behind a proxy nothing is checked, because names need not resolve on this machine.

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
