"""Check within seconds whether a server is reachable; plugins and the harness run this check before downloads."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 5.0
"""Seconds to wait for a server before it counts as unreachable."""


def network_advice() -> str:
    """Return the advice to unset ``HF_HUB_OFFLINE`` if it is set, or else to connect to the network.

    >>> "HF_HUB_OFFLINE" in network_advice()
    True
    """
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return "unset HF_HUB_OFFLINE to allow downloads"
    return "connect to the network (HF_HUB_OFFLINE=1 skips the connection attempt and uses only cached files)"


def why_unreachable(url: str) -> str | None:
    """Return the reason why the host of ``url`` is unreachable, or ``None`` if no reason was found.

    The check resolves the host's name, opens a connection and closes it; behind a proxy, the check connects to the
    proxy. The check takes at most :data:`PATIENCE` seconds. Without the check, the Hub's client would retry for up to a
    minute before failing.

    >>> why_unreachable("https://localhost.invalid/").partition(",")[0]
    'no network: host localhost.invalid does not resolve'
    """
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    parts = urlsplit(url)
    if parts.hostname is None:
        return None
    proxies = {} if proxy_bypass(parts.hostname) else getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    asked = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else parts
    kind = "proxy" if proxy else "host"
    return _ask(kind, asked.hostname, asked.port or (443 if asked.scheme == "https" else 80))


def _ask(kind: str, host: str | None, port: int) -> str | None:
    """Try to connect in a separate thread, because a name resolver that hangs cannot be stopped."""
    reasons: list[str | None] = []

    def connect() -> None:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reasons.append(f"{kind} {host} does not resolve, {getattr(error, 'strerror', None) or error}")
            return
        try:
            for index, (family, *_rest, address) in enumerate(addresses[:4]):
                with socket.socket(family, socket.SOCK_STREAM) as connection:
                    connection.settimeout(PATIENCE)
                    try:
                        connection.connect(address)
                        break
                    except OSError:
                        if index + 1 == len(addresses[:4]):
                            raise
            reasons.append(None)
        except OSError as error:
            reasons.append(f"{kind} {host} does not answer, {error.strerror or error}")

    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    reason = reasons[0] if reasons else f"{kind} {host} does not answer within {PATIENCE:g} seconds"
    return f"no network: {reason}" if reason else None
