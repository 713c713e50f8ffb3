"""Image folders made of real PNG and JPEG files."""

from __future__ import annotations

import ast
import copy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torchvision.datasets

from zoo import DataError, DatasetRequest, UsageError
from zoo.dataset import LoadedDataset, ReadOptions
from zoo.image_kinds import readable_endings
from zoo_plugins.image_folder import load

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def write_images(root: Path, *, count: int = 2) -> Path:
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            suffix = "JPG" if number % 2 else "png"
            PIL.Image.new("RGB", (20 + number, 10), colour).save(root / name / f"{number}.{suffix}")
    return root


def refused(path: Path, code: str) -> DataError:
    with pytest.raises(DataError) as caught:
        load_folder(path)
    assert caught.value.code == code
    return caught.value


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


@pytest.mark.parametrize("damage", [b"", b"no image at all", "truncated", "below 0"])
def test_an_unreadable_image_is_named_when_it_is_asked_for(tmp_path: Path, damage: bytes | str) -> None:
    write_images(tmp_path)
    path = tmp_path / "blue" / "0.png"
    if damage == "below 0":
        path = tmp_path / "blue" / "0.tiff"
        PIL.Image.new("F", (3, 3), -1).save(path)
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


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "green").mkdir()
    (tmp_path / "green" / "readme.txt").write_text("soon")
    error = refused(tmp_path, "class-empty")
    assert error.facts["name"] == "green"
    assert "1 file(s) ending in .txt" in str(error)


def test_folders_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "class-count")
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        PIL.Image.new("L", (5, 5)).save(tmp_path / name / "cat.1.png")
    refused(tmp_path, "classes-look-like-splits")
    (tmp_path / "test" / "cat").mkdir()
    refused(tmp_path, "split-missing")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "blue").rename(tmp_path / "train")
    assert load_folder(tmp_path).classes == ("red", "train")


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    refused(tmp_path, "class-count")


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test")
    (tmp_path / "test" / "green").mkdir()
    assert load_folder(tmp_path).classes == ("blue", "red", "green")  # zoo refuses what training lacks
    (tmp_path / "train" / "green").mkdir()
    refused(tmp_path, "class-empty")


def test_files_that_are_no_images_are_counted_and_named(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test")
    assert load_folder(tmp_path).warnings == ()
    for name in ("train/red/a.txt", "train/blue/b.TXT", "test/red/c.mov", "test/red/readme", "train/red/.hidden"):
        (tmp_path / name).write_bytes(b"")
    loaded = load_folder(tmp_path)
    (told,) = loaded.warnings
    assert told.startswith(
        f"4 file(s) ending in .txt, .mov, no extension are skipped, such as {tmp_path}/train/blue/b.TXT; "
    )
    assert "images end in .jpg" in told
    assert loaded.skipped == {"files of systems": 1, "files that are no images": 4}


# Which folder is which split


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("training", "testing"),
        ("TRAINING", "val"),
        ("train", "valid"),
        ("Training_Set", "Test_Set"),
        ("train", "Dev"),
        ("train", "eval"),
        ("train-images", "Evaluation"),
        ("train", "VALIDATION"),
    ],
)
def test_usual_names_of_splits_in_any_case(tmp_path: Path, train: str, test: str) -> None:
    write_images(tmp_path / train, count=3)
    write_images(tmp_path / test)
    loaded = load_folder(tmp_path)
    assert loaded.classes == ("blue", "red")
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 6, "test": 4}
    assert loaded.reading == (f"split train is folder {train}", f"split test is folder {test}")


def test_folders_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name in ("train", "test", "val", "unlabelled"):
        write_images(tmp_path / name)
    (told,) = load_folder(tmp_path).warnings
    assert told.startswith("2 folder(s) beside the splits are not read: 'unlabelled', 'val'")


@pytest.mark.parametrize("names", [("train", "Train", "test"), ("train", "training"), ("train", "test", "TEST")])
def test_two_folders_for_one_split_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_images(tmp_path / name)
    assert len(refused(tmp_path, "split-ambiguous").facts["folders"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [("seg_train", "seg_test"), ("train2017", "val2017"), ("Train", "Test")])
@pytest.mark.parametrize("inner", ["", "blue"])
def test_class_folders_that_look_like_splits_are_refused(tmp_path: Path, names: tuple[str, ...], inner: str) -> None:
    if inner and names == ("Train", "Test"):
        return  # these are splits
    for name in names:
        write_images(tmp_path / "made" / name)
        (tmp_path / name).mkdir()
        (tmp_path / "made" / name / "blue").rename(tmp_path / name / inner)
    shutil.rmtree(tmp_path / "made")
    error = refused(tmp_path, "classes-look-like-splits")
    assert error.facts["folders"] == sorted(names)
    assert "name the folders" in str(error) if inner else "one folder per class" in str(error)


def test_classes_that_only_sound_like_splits_are_classes(tmp_path: Path) -> None:
    for name in ("test tube", "train", "trainer"):
        (tmp_path / name).mkdir()
        PIL.Image.new("L", (5, 5)).save(tmp_path / name / "a.png")
    assert load_folder(tmp_path).classes == ("test tube", "train", "trainer")


def test_splits_further_down_get_a_hint(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "images" / "train")
    write_images(tmp_path / "data" / "images" / "val")
    (tmp_path / "data" / "docs").mkdir()
    for root in (tmp_path, tmp_path / "data"):
        assert refused(root, "layout-nested").facts["try_path"] == str(tmp_path / "data" / "images")


def test_splits_inside_of_classes_are_refused(tmp_path: Path) -> None:
    for colour in COLOURS:
        for split in ("train", "test"):
            (tmp_path / colour / split).mkdir(parents=True)
            PIL.Image.new("L", (5, 5)).save(tmp_path / colour / split / "a.png")
    refused(tmp_path, "layout-splits-in-classes")


# What systems leave behind


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN", "System Volume Information"),
        *(".ipynb_checkpoints", "__MACOSX", ".thumbnails", "@Recycle"),
    ],
)
def test_folders_of_systems_are_skipped_and_counted(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "train", count=3)
    for folder in (tmp_path, tmp_path / "train", tmp_path / "train" / "red", tmp_path / "train" / "blue"):
        (folder / name).mkdir()
        PIL.Image.new("L", (5, 5)).save(folder / name / "thumb.jpg")
    loaded = load_folder(tmp_path)
    assert (loaded.classes, len(loaded.splits["train"])) == (("blue", "red"), 6)
    assert loaded.skipped == {"files of systems": 4}
    assert f"skipped 4 files or folders made by systems or hidden: {name} (4)" in loaded.reading


def test_files_of_systems_are_skipped_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "._0.png", "._1.JPG", "desktop.ini", "Icon\r"):
        (tmp_path / "red" / name).write_bytes(b"\0\5\x16\7")
    loaded = load_folder(tmp_path)
    assert (len(loaded.splits["train"]), loaded.warnings) == (4, ())
    assert loaded.skipped == {"files of systems": 6}
    assert any("._* (2)" in line and "\r" not in line for line in loaded.reading)


def test_images_of_no_class_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    PIL.Image.new("L", (5, 5)).save(tmp_path / "train" / "lost.png")
    loaded = load_folder(tmp_path)
    assert "1 image file(s) outside of the class folders are skipped" in loaded.warnings[0]
    assert loaded.skipped == {"images outside of class folders": 1}


# Names of classes


def test_class_names_are_compared_in_nfc(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for split, name in (("train", composed), ("test", decomposed)):
        write_images(tmp_path / split)
        (tmp_path / split / "red").rename(tmp_path / split / name)
    loaded = load_folder(tmp_path)
    assert loaded.classes == ("blue", composed)
    assert loaded.splits["test"].labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "train" / decomposed).mkdir()
    refused(tmp_path, "class-twice")


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[31mred", "left\u202eright", "a\u2066b", "\u200bspace", "bell\x07", "caf\udce9", "mark\u200f"]
)
def test_class_names_that_deceive_are_refused(tmp_path: Path, name: str) -> None:
    write_images(tmp_path)
    (tmp_path / "red").rename(tmp_path / name)
    error = refused(tmp_path, "class-name")
    assert str(error).isprintable()
    str(error).encode()


@pytest.mark.parametrize(
    "name", ["\u732b", "\u0646\u0645\u06cc\u200c\u0634\u0648\u062f", "\U0001f469\u200d\U0001f33e", "caf\u00e9 noir"]
)
def test_names_of_any_script_are_classes(tmp_path: Path, name: str) -> None:
    write_images(tmp_path)
    (tmp_path / "red").rename(tmp_path / name)
    assert name in load_folder(tmp_path).classes


# Kinds of image files


@pytest.mark.parametrize("ending", ["gif", "jfif", "jpe", "avif", "webp", "jp2", "tga", "qoi", "pbm"])
def test_what_pillow_reads_is_read(tmp_path: Path, ending: str) -> None:
    write_images(tmp_path)
    image = PIL.Image.new("1" if ending == "pbm" else "RGB", (8, 8))
    image.save(tmp_path / "red" / f"a.{ending}", "jpeg" if ending in ("jfif", "jpe") else None)
    loaded = load_folder(tmp_path)
    assert loaded.warnings == ()
    images = loaded.splits["train"].images
    assert images[[path.suffix for path in images.paths].index(f".{ending}")].size == (8, 8)


@pytest.mark.parametrize(("ending", "told"), [("heic", "pillow-heif"), ("jxl", "pillow-jxl"), ("nef", "convert it")])
def test_kinds_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path, ending: str, told: str) -> None:
    if f".{ending}" in readable_endings():
        pytest.skip(f"this machine reads {ending}")
    write_images(tmp_path)
    for number in range(12):
        (tmp_path / "red" / f"photo{number:02}.{ending.upper()}").write_bytes(b"data")
    error = refused(tmp_path, "image-kind")
    assert told in str(error.facts["remedy"])
    assert error.facts["count"] == 12
    assert "photo09" in str(error)
    assert "photo10" not in str(error)
    loaded = load(DatasetRequest(argument=str(tmp_path), options=ReadOptions(skip_unreadable=True)))
    assert (len(loaded.splits["train"]), loaded.skipped) == (4, {"unreadable images": 12})
    assert told in loaded.warnings[0]


@pytest.mark.parametrize("ending", ["gif", "tiff", "webp", "png", "avif"])
def test_files_of_several_pages_are_noted_when_decoded(tmp_path: Path, ending: str) -> None:
    write_images(tmp_path)
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "red" / f"pages.{ending}", save_all=True, append_images=frames[1:])
    request = DatasetRequest(argument=str(tmp_path))
    images = load(request).splits["train"].images
    decoded = [images[index] for index in range(len(images))]
    (name,) = request.reader.notes.paged
    index = images.paths.index(Path(name))
    assert images.paths[index].name == f"pages.{ending}"
    red, green, _blue = decoded[index].getpixel((4, 4))
    assert red > 200 > 50 > green


# Classes that the test split lacks


@pytest.mark.parametrize("empty", [True, False])
def test_a_test_split_may_lack_a_class(tmp_path: Path, empty: bool) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test")
    shutil.rmtree(tmp_path / "test" / "red")
    if empty:
        (tmp_path / "test" / "red").mkdir()
    loaded = load_folder(tmp_path)
    assert loaded.classes == ("blue", "red")
    assert loaded.splits["test"].labels.tolist() == [0, 0]


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
    refused(tmp_path, "same-folder")
    (tmp_path / "train" / "red" / "circle").symlink_to(tmp_path / "train")
    refused(tmp_path / "train", "folder-link")
    (tmp_path / "train" / "red" / "circle").unlink()
    (tmp_path / "train" / "red" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    refused(tmp_path / "train", "not-a-file")


def test_usual_formats_are_tried_first(tmp_path: Path) -> None:
    program = "import zoo.image_kinds as kinds; kinds.readable_endings(); import PIL.Image; print(PIL.Image.ID[:6])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert {"JPEG", "PNG"} <= set(ast.literal_eval(found)), "each other format costs time for each image"
