"""Image folders made of real PNG and JPEG files."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torchvision.datasets

from zoo import DataError, DatasetRequest, UsageError
from zoo.dataset import LoadedDataset
from zoo_plugins.image_folder import load

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def write_images(root: Path, *, count: int = 2) -> Path:
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            suffix = "JPG" if number % 2 else "png"
            PIL.Image.new("RGB", (20 + number, 10), colour).save(root / name / f"{number}.{suffix}")
    return root


def load_folder(path: Path) -> LoadedDataset:
    return load(DatasetRequest(argument=str(path)))


@pytest.mark.parametrize("evaluation", ["test", "val", "validation"])
def test_train_and_evaluation_folders(tmp_path: Path, evaluation: str) -> None:
    write_images(tmp_path / "train", count=3)
    write_images(tmp_path / evaluation)
    loaded = load_folder(tmp_path)
    assert loaded.classes == ("blue", "red")
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 6, "test": 4}
    assert loaded.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    suffix = "" if evaluation == "test" else f" (split test is its folder {evaluation})"
    assert loaded.source == f"folder {tmp_path}{suffix}"


def test_the_evaluation_folder_named_first_is_taken(tmp_path: Path) -> None:
    for name in ("train", "validation", "val"):
        write_images(tmp_path / name)
    assert "folder val)" in load_folder(tmp_path).source


def test_class_folders_alone_are_one_split_in_torchvisions_order(tmp_path: Path) -> None:
    write_images(tmp_path, count=3)
    (tmp_path / "Zebra" / "young").mkdir(parents=True)
    PIL.Image.new("L", (5, 5)).save(tmp_path / "Zebra" / "young" / "z.webp")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / "red" / "notes.txt").write_text("not an image")
    loaded = load_folder(tmp_path)
    assert list(loaded.splits) == ["train"]
    assert loaded.classes == ("Zebra", "blue", "red")
    (tmp_path / ".thumbnails").rmdir()  # torchvision takes hidden folders for classes
    theirs = torchvision.datasets.ImageFolder(tmp_path)
    assert tuple(theirs.classes) == loaded.classes
    ours = zip(map(str, loaded.splits["train"].images.paths), loaded.splits["train"].labels, strict=True)
    assert list(ours) == theirs.samples


def test_images_are_decoded_when_asked_for_as_upright_rgb(tmp_path: Path) -> None:
    write_images(tmp_path)
    pixels = np.zeros((8, 16), np.uint8)
    pixels[0, 0] = 255  # the top left corner; orientation 6 says that it belongs at the top right
    image = PIL.Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "blue" / "a.png", exif=exif)
    PIL.Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "blue" / "b.png")
    PIL.Image.new("RGBA", (3, 3), (9, 8, 7, 0)).quantize().save(tmp_path / "blue" / "c.png", transparency=b"\0")
    PIL.Image.new("CMYK", (3, 3)).save(tmp_path / "blue" / "d.jpg")
    images = copy.deepcopy(load_folder(tmp_path).splits["train"].images)  # as pickle does for worker processes
    decoded = {path.name: images[index] for index, path in enumerate(images.paths) if path.parent.name == "blue"}
    assert {image.mode for image in decoded.values()} == {"RGB"}
    assert (decoded["a.png"].size, decoded["a.png"].getpixel((7, 0))) == ((8, 16), (255, 255, 255))
    assert np.array_equal(np.asarray(decoded["b.png"])[..., 0], pixels)


@pytest.mark.parametrize("damage", [b"", b"no image at all", "truncated", "mode F"])
def test_an_unreadable_image_is_named_when_it_is_asked_for(tmp_path: Path, damage: bytes | str) -> None:
    write_images(tmp_path)
    path = tmp_path / "blue" / "0.png"
    if damage == "mode F":
        path = tmp_path / "blue" / "0.tiff"
        PIL.Image.new("F", (3, 3)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:50] if isinstance(damage, str) else damage)
    images = load_folder(tmp_path).splits["train"].images
    with pytest.raises(DataError) as caught:
        images[images.paths.index(path)]
    assert (caught.value.code, caught.value.facts["image"]) == ("image-undecodable", str(path))
    assert "<_io" not in str(caught.value)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    images = load_folder(write_images(tmp_path)).splits["train"].images
    (tmp_path / "blue" / "0.png").unlink()
    with pytest.raises(DataError, match="No such file") as caught:
        images[0]
    assert caught.value.code == "file-unreadable"


@pytest.mark.parametrize("argument", [None, "", "/no/such/folder", __file__])
def test_a_path_that_is_no_folder_is_a_usage_error(argument: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        load(DatasetRequest(argument=argument))
    assert caught.value.code == "missing-folder"


def test_a_data_dir_beside_the_path_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(DatasetRequest(argument=str(tmp_path), data_dir=tmp_path))
    assert caught.value.code == "option-unused"


def refusal(folder: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        load_folder(folder)
    return caught.value


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "green").mkdir()
    (tmp_path / "green" / "readme.txt").write_text("soon")
    error = refusal(tmp_path)
    assert (error.code, error.facts["name"]) == ("class-empty", "green")
    assert "1 file(s) ending in .txt" in str(error)


def test_folders_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "class-count"
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        PIL.Image.new("L", (5, 5)).save(tmp_path / name / "cat.1.png")
    assert refusal(tmp_path).code == "class-count"
    (tmp_path / "test" / "cat").mkdir()
    assert refusal(tmp_path).code == "split-missing"


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "blue").rename(tmp_path / "train")
    assert load_folder(tmp_path).classes == ("red", "train")


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    assert refusal(tmp_path).code == "class-count"


@pytest.mark.parametrize("changed", ["train", "test"])
def test_train_and_test_with_other_classes_are_refused(tmp_path: Path, changed: str) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test")
    (tmp_path / changed / "green").mkdir()
    error = refusal(tmp_path)
    assert error.code == "class-mismatch"
    assert f"['green'] are in {tmp_path / changed}" in str(error)


def test_files_that_are_no_images_are_counted_and_named(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test")
    assert load_folder(tmp_path).warnings == ()
    for name in ("train/red/a.gif", "train/blue/b.GIF", "test/red/c.heic", "test/red/readme", "train/red/.hidden"):
        (tmp_path / name).write_bytes(b"")
    (warning,) = load_folder(tmp_path).warnings
    assert warning.startswith(
        f"4 file(s) ending in .gif, .heic, no extension are left out, such as {tmp_path}/train/blue/b.GIF; "
    )
    assert "images end in .jpg" in warning


def test_links_to_files_and_classes_are_followed(tmp_path: Path) -> None:
    write_images(tmp_path / "all")
    (tmp_path / "mine" / "red").mkdir(parents=True)
    (tmp_path / "mine" / "red" / "one.png").symlink_to(tmp_path / "all" / "red" / "0.png")
    (tmp_path / "mine" / "sky").symlink_to(tmp_path / "all" / "blue")
    loaded = load_folder(tmp_path / "mine")
    assert (loaded.classes, loaded.splits["train"].labels.tolist()) == (("red", "sky"), [0, 1, 1])


def test_links_that_surprise_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    (tmp_path / "test").symlink_to(tmp_path / "train")
    assert refusal(tmp_path).code == "same-folder"
    (tmp_path / "train" / "red" / "circle").symlink_to(tmp_path / "train")
    assert refusal(tmp_path / "train").code == "folder-link"
    (tmp_path / "train" / "red" / "circle").unlink()
    (tmp_path / "train" / "red" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert refusal(tmp_path / "train").code == "not-a-file"
