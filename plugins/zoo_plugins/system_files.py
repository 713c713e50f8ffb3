"""Recognise files and folders that operating systems, file servers and tools create among a user's images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

_NAMES = frozenset({
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@sharebin",  # Synology, QNAP
    "lost+found",  # Linux
    "$recycle.bin", "system volume information", "found.000", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "__macosx", "icon\r", "network trash folder", "temporary items",  # macOS, and archives from macOS
    "__pycache__", "ipynb_checkpoints",
})  # fmt: skip
_THUMBNAILS = re.compile(r"synofile_thumb|synophoto_thumb", re.IGNORECASE)


def is_system_name(name: str) -> bool:
    """Whether the name belongs to a hidden file or folder, or to a file or folder that a system creates.

    >>> [is_system_name(name) for name in ("@eaDir", "$RECYCLE.BIN", "._cat.jpg", ".DS_Store", "cat.jpg")]
    [True, True, True, True, False]
    """
    return name.startswith(".") or name.casefold() in _NAMES or bool(_THUMBNAILS.match(name))


def skipped_note(skipped: Sequence[PurePath]) -> str:
    """Return a line that counts the skipped system files and folders, and gives the most frequent names.

    >>> skipped_note([PurePath("a/@eaDir"), PurePath("b/@eaDir"), PurePath("a/.DS_Store")])
    'skipped 3 files or folders made by systems or hidden: @eaDir (2), .DS_Store'
    >>> skipped_note([PurePath("a/@eaDir")])
    'skipped 1 file or folder made by systems or hidden: @eaDir'
    """
    counts: dict[str, int] = {}
    for path in skipped:
        name = "._*" if path.name.startswith("._") else path.name
        counts[name] = counts.get(name, 0) + 1
    shown = [
        f"{name!r}"[1:-1] + (f" ({count})" if count > 1 else "")
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    rest = ", ..." if len(shown) > 8 else ""
    kinds = "file or folder" if len(skipped) == 1 else "files or folders"
    return f"skipped {len(skipped):,} {kinds} made by systems or hidden: {', '.join(shown[:8])}{rest}"
