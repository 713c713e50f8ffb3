"""The confusion matrix: counted right, what stands out told, and a picture that can be read from 2 to 1,000 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import confusion_matrix

from zoo_harness.evaluation.confusion import Confusion, count_confusion, summarize
from zoo_harness.reports.plots import confusion as confusion_plot
from zoo_harness.reports.plots.confusion import plot_confusion


def counted(classes: int, images: int, right: float = 0.7) -> Confusion:
    draws = np.random.default_rng(0)
    labels = draws.integers(0, classes, images)
    predicted = np.where(draws.random(images) < right, labels, draws.integers(0, classes, images))
    names = tuple(f"class {number}" for number in range(classes))
    found = count_confusion(torch.from_numpy(labels), torch.from_numpy(predicted), names, "test")
    assert found is not None
    assert np.array_equal(found.counts, confusion_matrix(labels, predicted, labels=range(classes)))
    return found


def test_classes_that_never_occur_or_are_never_predicted_have_their_rows_and_columns() -> None:
    found = count_confusion(torch.tensor([2, 2, 0]), torch.tensor([0, 2, 0]), ("a", "b", "c", "d"), "test")
    assert found is not None
    assert found.counts == ((1, 0, 0, 0), (0, 0, 0, 0), (1, 0, 1, 0), (0, 0, 0, 0))
    summary = summarize(found)
    assert [(pair.true, pair.predicted, pair.images, pair.of) for pair in summary.pairs] == [("c", "a", 1, 2)]
    assert [(worst.name, worst.accuracy.value, worst.accuracy.n) for worst in summary.worst] == [
        ("c", 0.5, 2),
        ("a", 1.0, 1),
    ]


def test_most_confused_pairs_and_worst_classes_come_first() -> None:
    found = counted(30, 3000)
    summary, counts = summarize(found), np.array(found.counts)
    wrong = counts - np.diag(np.diag(counts))
    assert [pair.images for pair in summary.pairs] == sorted(wrong.flatten().tolist(), reverse=True)[:5]
    accuracies = np.sort(np.diag(counts) / counts.sum(axis=1))
    assert [worst.accuracy.value for worst in summary.worst] == pytest.approx(accuracies[:5].tolist())
    first = summary.worst[0].accuracy
    assert first.standard_error == pytest.approx((first.value * (1 - first.value) / first.n) ** 0.5)


def test_too_many_classes_have_no_matrix() -> None:
    names = tuple(map(str, range(1001)))
    assert count_confusion(torch.tensor([0]), torch.tensor([0]), names, "test") is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = counted(5, 50)
    found.write(tmp_path)
    assert Confusion.model_validate_json((tmp_path / "confusion.json").read_bytes()) == found


@pytest.mark.parametrize("classes", [2, 10, 25, 26, 60, 61, 300])
def test_picture_has_numbers_and_names_while_they_fit(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    save = confusion_plot.save_figure
    monkeypatch.setattr(
        confusion_plot,
        "save_figure",
        lambda figure, *path, **options: figures.append(figure) or save(figure, *path, **options),
    )
    found = counted(classes, 40 * classes)
    plot_confusion(found, tmp_path / "c.png")
    axes = figures[0].axes[0]
    numbers = [text.get_text() for text in axes.texts]
    assert len(numbers) == (np.count_nonzero(found.counts) if classes <= 25 else 0)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert (names == list(found.classes)) == (classes <= 60)
    assert max(size_of(tmp_path / "c.png")) < 1800


def test_numbers_stand_out_against_their_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(confusion_plot, "save_figure", lambda figure, *_path, **_options: figures.append(figure))
    counts = tuple(tuple(100 if row == column else 3 * column for column in range(10)) for row in range(10))
    plot_confusion(Confusion(split="test", classes=tuple("abcdefghij"), counts=counts), tmp_path / "c.png")
    axes = figures[0].axes[0]
    picture = axes.images[0]
    cells = picture.cmap(picture.norm(picture.get_array()))
    for text in axes.texts:
        column, row = (int(place) for place in text.get_position())
        ink = np.array([1.0, 1.0, 1.0]) if text.get_color() == "white" else np.array([0x22] * 3) / 255
        assert contrast(ink, cells[row, column, :3]) > 3


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """The contrast ratio of WCAG 2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: np.ndarray) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", [r"$\undefined{$", "x" * 500, "", "line\nbreak", "\u732b"])
def test_any_class_name_is_drawn(name: str, tmp_path: Path) -> None:
    plot_confusion(Confusion(split=name, classes=(name, "b"), counts=((1, 2), (0, 3))), tmp_path / "c.png")
    assert max(size_of(tmp_path / "c.png")) < 1000


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
