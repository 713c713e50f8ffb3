"""Image files of any kind under any ending: read or refused by name, and alike by runs and predictions."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings, strategies

from zoo import DataError, DatasetRequest
from zoo.image_kinds import readable_endings
from zoo.image_reader import ImageReader
from zoo_harness.data.image_files import read_image
from zoo_plugins.image_folder import ImagePaths, load

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")


def encoded(ending: str, mode: str) -> bytes | None:
    """An image of a mode in the format of an ending; nothing if it has no such mode."""
    file = io.BytesIO()
    values = np.linspace(0, 200, 12 * 16).reshape(12, 16)
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    image = PIL.Image.fromarray(values.astype(kinds.get(mode, np.uint8)))
    try:
        (image if mode in kinds else image.convert("RGB").convert(mode)).save(
            file, PIL.Image.registered_extensions()[ending]
        )
    except (OSError, KeyError, ValueError):
        return None
    return file.getvalue()


@pytest.fixture(scope="module")
def samples() -> dict[tuple[str, str], bytes]:
    found = {(ending, mode): encoded(ending, mode) for ending in readable_endings() for mode in MODES}
    return {key: content for key, content in found.items() if content is not None}


def test_any_kind_under_any_ending_is_read_alike_or_refused(samples: dict[tuple[str, str], bytes]) -> None:
    endings = (*readable_endings(), ".txt", ".nef", "")

    @settings(deadline=None, max_examples=150, derandomize=True)
    @given(
        kind=strategies.sampled_from(sorted(samples)),
        ending=strategies.sampled_from(endings),
        keep=strategies.one_of(strategies.just(1.0), strategies.floats(0, 1)),
        changes=strategies.lists(
            strategies.tuples(strategies.floats(0, 0.999), strategies.integers(0, 255)), max_size=3
        ),
    )
    def check(kind: tuple[str, str], ending: str, keep: float, changes: list[tuple[float, int]]) -> None:
        content = bytearray(samples[kind])
        for place, value in changes:
            content[int(place * len(content))] = value
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
            path = Path(folder) / f"image{ending}"
            path.write_bytes(content[: int(keep * len(content))])
            read_alike(path, sound=keep == 1 and not changes)

    check()


def read_alike(path: Path, *, sound: bool) -> None:
    """Read a file as a run and as a prediction do: to the same pixels, or both refuse it."""
    found: list[list[int] | str] = []
    for read in (lambda: ImagePaths([path], ImageReader())[0], lambda: read_image(path, ImageReader())):
        named = True
        try:
            found.append(np.asarray(read().convert("RGB")).tolist())
        except DataError as error:
            found.append(error.code)
            named = str(path) in str(error)
        assert named
    assert found[0] == found[1]
    assert isinstance(found[0], list) or not sound


@pytest.mark.parametrize("kind", ["folder", "fifo", "socket link", "broken link", "empty", "no permission"])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        PIL.Image.new("RGB", (4, 4)).save(tmp_path / name / "good.png")
    path = tmp_path / "a" / "bad.png"
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket link":
            path.symlink_to("/dev/zero")
        case "broken link":
            path.symlink_to(tmp_path / "nowhere")
        case "empty":
            path.touch()
        case _:
            path.symlink_to(path)  # in a circle: it cannot be opened, not even by root
    if kind != "folder":  # a folder in a class is one more folder of its images
        with pytest.raises(DataError):
            _read = [*load(DatasetRequest(str(tmp_path))).splits["train"].images]
    with pytest.raises(DataError) as caught:
        read_image(path, ImageReader())
    assert str(path) in str(caught.value)
