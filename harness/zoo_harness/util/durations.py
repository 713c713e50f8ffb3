"""Parse and format durations, such as ``1h30m``."""

from __future__ import annotations

import re

from zoo.errors import UsageError

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(option: str, text: str) -> float:
    """Return the seconds of a duration such as ``10m``, ``90s`` or ``1h30m``; a number without a unit is in seconds.

    >>> parse_duration("--budget", "1h30m"), parse_duration("--budget", "90")
    (5400.0, 90.0)
    """
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([hms])", text)
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        parts = [(text, "s")]
    elif "".join(number + unit for number, unit in parts) != text:
        parts = []
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 < seconds < 1e9:
        message = f"{option} is wrong: {text!r:.80}; expected a time such as 10m, 90s or 1h30m"
        raise UsageError(message, code="option-value", option=option.removeprefix("--").replace("-", "_"))
    return seconds


def in_words(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours, rounded.

    >>> in_words(5432), in_words(95), in_words(4.2)
    ('1 h 31 min', '1 min 35 s', '4 s')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"
