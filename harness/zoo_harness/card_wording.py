"""What the parts of a record come to in words and figures, for the cards."""

from __future__ import annotations

import re
from collections.abc import Iterable

from zoo.backbone import DualHead, Head, Preprocessing
from zoo_harness.run_record import Measurement, RunRecord, SplitRecord

NOT_MEASURED = "not measured"

# From where a path begins that says where it lies, greedily to the last slash of all: of a folder with spaces in its
# name nothing may stay.
_FOLDERS = re.compile(r"""(?<![^\s'"(=])(?:~[^\s/]*|\.\.)?/(?=\S)(?:.*/)?""", re.DOTALL)
_OPTION_AND_NAME = re.compile(r"(?:--?[\w-]+=)?(?:\w+:(?!//))?")


def without_folders(text: str) -> str:
    """The text with the last part alone of a path that begins at the root, at home or above; others stay.

    >>> without_folders("folder /srv/me/my photos (split test is its folder val)")
    'folder my photos (split test is its folder val)'
    >>> without_folders("https://example.org/a/b"), without_folders("runs/a")
    ('https://example.org/a/b', 'runs/a')
    """
    return _FOLDERS.sub("", text.rstrip("/") or text)


def command_without_folders(command: Iterable[str]) -> tuple[str, ...]:
    """A command line whose paths are as :func:`without_folders` leaves them.

    >>> command_without_folders(["zoo", "eval", "--dataset", "imagefolder:/srv/me/photos", "--out=~/runs/a"])
    ('zoo', 'eval', '--dataset', 'imagefolder:photos', '--out=a')
    """
    return tuple(map(_word_without_folders, command))


def _word_without_folders(word: str) -> str:
    start = _OPTION_AND_NAME.match(word)
    begins = start.end() if start else 0
    return word[:begins] + without_folders(word[begins:])


def percent(measurement: Measurement | None) -> str:
    """A proportion in percent with its standard error.

    >>> percent(Measurement(value=0.9712, standard_error=0.00167, n=10000))
    '97.12 % ± 0.17'
    """
    if measurement is None:
        return NOT_MEASURED
    return f"{measurement.value:.2%} ± {measurement.standard_error * 100:.2f}".replace("%", " %")


def number(value: float | None, unit: str = "", digits: int = 1) -> str:
    """A figure with its unit; integers get thousands separators and no decimals.

    >>> number(1234567), number(12.345, "s"), number(None)
    ('1,234,567', '12.3 s', 'not measured')
    """
    if value is None:
        return NOT_MEASURED
    figure = f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
    return f"{figure} {unit}".rstrip()


def per_class(split: SplitRecord) -> str:
    """How the images of a split are spread over the classes.

    >>> shape = {"pixels": (8, 8), "resized": False}
    >>> per_class(SplitRecord(split="train", images=30, per_class=(20, 10), fingerprint="", **shape))
    '10 to 20 of a class'
    """
    fewest, most = min(split.per_class), max(split.per_class)
    return f"{most:,} of each class" if fewest == most else f"{fewest:,} to {most:,} of a class"


def head_in_words(head: Head | DualHead, width: int, classes: int) -> str:
    """What replaced the classifier.

    >>> head_in_words(Head("head", hidden=256), 384, 10)
    'an MLP at head (384 to 256 to 10, ReLU between)'
    """
    if isinstance(head, DualHead):
        return " and ".join(head_in_words(part, width, classes) for part in head.parts)
    without = f", without {' and '.join(head.bypass)} before it" if head.bypass else ""
    if head.hidden is None:
        return f"a linear layer at {head.path} ({width} to {classes}){without}"
    return f"an MLP at {head.path} ({width} to {head.hidden} to {classes}, ReLU between){without}"


def preprocessing_in_words(preprocessing: Preprocessing) -> str:
    """What happens to an image before the network sees it.

    >>> preprocessing_in_words(Preprocessing(input_size=(32, 32), interpolation="bilinear"))
    'shorter side resized to 32 pixels, centre crop of 32 x 32, bilinear'
    >>> preprocessing_in_words(Preprocessing(input_size=(448, 448), crop_fraction=0.956, crop_mode="squash"))
    'resized to 448 x 448 pixels / 0.956 whatever the aspect, centre crop of 448 x 448, bicubic'
    """
    height, width = preprocessing.input_size
    part = f" / {preprocessing.crop_fraction:g}" if preprocessing.crop_fraction < 1 else ""
    crop = f"centre crop of {height} x {width}"
    if preprocessing.crop_mode == "squash":
        squashed = f"resized to {height} x {width} pixels{part} whatever the aspect"
        return f"{squashed}, {crop + ', ' if part else ''}{preprocessing.interpolation}"
    side = f"{min(height, width)}{part}"
    return f"shorter side resized to {side} pixels, {crop}, {preprocessing.interpolation}"


def pretrained_on(record: RunRecord) -> str | None:
    """The data the weights of this run were made with, ``None`` where it is not known."""
    if record.weights.kind == "random":
        return "nothing (random weights)"
    return record.backbone.pretrained_on if record.weights.declared else None
