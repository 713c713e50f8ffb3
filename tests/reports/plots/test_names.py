"""Names in plots: drawn in whatever installed font has their characters, else as numbers and with advice."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image

from zoo_harness.evaluation.confusion import Confusion
from zoo_harness.reports.plots import names
from zoo_harness.reports.plots.confusion import plot_confusion
from zoo_harness.reports.plots.run import plot_samples

CAT, DOG = "\u732b", "\u72ac"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Hide the machine's fonts from matplotlib, and install one that has these characters as black squares."""
    bundled = [font for font in fontManager.ttflist if "mpl-data" in str(font.fname)]
    installed: list[str] = []
    monkeypatch.setattr(fontManager, "ttflist", bundled)
    monkeypatch.setattr(names, "findSystemFonts", lambda: installed)
    monkeypatch.setattr(names, "_installed", names.cache(names._installed.__wrapped__))
    monkeypatch.setattr(names, "_family_with", names.cache(names._family_with.__wrapped__))

    def add(characters: str, family: str = "Squares") -> None:
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 800), (800, 800), (800, 0)):
            pen.lineTo(corner)
        pen.closePath()
        font = FontBuilder(1000, isTTF=True)
        font.setupGlyphOrder([".notdef", "square"])
        font.setupCharacterMap(dict.fromkeys(map(ord, characters), "square"))
        font.setupGlyf(dict.fromkeys((".notdef", "square"), pen.glyph()))
        font.setupHorizontalMetrics(dict.fromkeys((".notdef", "square"), (1000, 0)))
        font.setupHorizontalHeader(ascent=900, descent=-100)
        font.setupNameTable({"familyName": family, "styleName": "Regular"})
        font.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
        font.setupPost()
        font.save(tmp_path / f"{family}.ttf")
        installed.append(str(tmp_path / f"{family}.ttf"))

    yield add
    fontManager._findfont_cached.cache_clear()


def drawn(path: Path, *classes: str) -> bytes:
    """The plot of an image of each class; no warning may be shown."""
    images = np.full((len(classes), 8, 8, 3), 200, np.uint8)
    with warnings.catch_warnings(action="error"):
        plot_samples(images, range(len(classes)), classes, path)
    return path.read_bytes()


def test_a_name_that_no_font_has_becomes_its_number(install: Install, tmp_path: Path) -> None:
    assert drawn(tmp_path / "a.png", "cat", CAT) == drawn(tmp_path / "b.png", "cat", "class 1")


def test_a_name_is_drawn_in_an_installed_font_that_has_it(install: Install, tmp_path: Path) -> None:
    install(CAT + DOG)
    assert names.font_families(["cat", CAT])[-1] == "Squares"
    assert names.missing_font_note(["cat", CAT, DOG]) is None
    drawn(tmp_path / "a.png", "cat", CAT)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert (pixels[len(pixels) // 2 :] < 60).sum() > 100  # the square, of 14 pixels by 14


def test_each_script_may_have_a_font_of_its_own(install: Install) -> None:
    install(CAT, "Cats")
    install(DOG, "Dogs")
    assert names.font_families([CAT + DOG])[-2:] == ["Cats", "Dogs"]
    assert names.shown_classes([(0, f"a {CAT}"), (1, DOG)]) == [f"a {CAT}", DOG]


def test_the_axes_of_a_confusion_matrix_are_named_too(install: Install, tmp_path: Path) -> None:
    counts = ((3, 1), (0, 4))
    plot_confusion(Confusion(split="test", classes=("cat", CAT), counts=counts), tmp_path / "a.png")
    plot_confusion(Confusion(split="test", classes=("cat", "class 1"), counts=counts), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    install(CAT)
    names._installed.cache_clear()
    names._family_with.cache_clear()
    plot_confusion(Confusion(split="test", classes=("cat", CAT), counts=counts), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "package"),
    [(CAT, "fonts-noto-cjk"), ("\ud55c\uae00", "fonts-noto-cjk"), ("\u0e41\u0e21\u0e27", "fonts-noto-core")],
)
def test_the_package_to_install_is_named_in_one_line(install: Install, name: str, package: str) -> None:
    assert names.missing_font_note(["cat", "\u00e9l\u00e8ve"]) is None
    note = names.missing_font_note(["cat", name, name * 2])
    assert note is not None
    reason = f"because no installed font has the characters of names such as {name!r}"
    assert f"plots show numbers instead of names for 2 classes, {reason}" in note
    assert f"installing {package} " in note
    assert len(note.splitlines()) == 1


def test_a_damaged_font_does_no_harm(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(names, "findSystemFonts", lambda: [str(broken)])
    assert names.shown_name(CAT, "class 1") == "class 1"
