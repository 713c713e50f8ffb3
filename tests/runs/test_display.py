"""The bar as a terminal gets it."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
from zoo_harness.runs.display import TerminalProgress
with ProgressDisplay() as progress:
    progress.stage({name!r}, {images})
    progress.advance(3)
    progress._bar.refresh()
"""


def shown(name: str, images: int) -> str:
    """What the bar of a stage looks like at a terminal."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    program = PROGRAM.format(name=name, images=images)
    subprocess.run([sys.executable, "-c", program], stderr=theirs, env=environment, check=True)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            drawn += os.read(ours, 65536)
        except OSError:  # all is read
            os.close(ours)
            return drawn.decode()


def test_images_are_counted() -> None:
    drawn = shown("features", 1200)
    assert "features" in drawn
    assert "3/1,200 images" in drawn


def test_what_is_not_counted_shows_no_count() -> None:
    drawn = shown("loading weights", 0)
    assert "loading weights" in drawn
    assert "?" not in drawn.replace("\x1b[?25", "")
    assert "images" not in drawn
    assert "-:--" not in drawn
