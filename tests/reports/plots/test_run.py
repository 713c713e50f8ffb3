"""The pictures show what they are given: right side up, in its own colours, best epoch marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from zoo.backbone import SCRATCH, Training
from zoo_harness.records.run import EpochRecord
from zoo_harness.reports.plots.run import plot_history, plot_learning_rate, plot_samples

TRAIN, EVALUATION, RING = (0, 114, 178), (213, 94, 0), (34, 34, 34)


def epoch(number: int, loss: float, accuracy: float) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        train_loss=loss / 2,
        train_accuracy=(1 + accuracy) / 2,
        evaluation_loss=loss,
        evaluation_accuracy=accuracy,
        train_seconds=1.0,
        evaluation_seconds=0.1,
    )


def pixels(path: Path) -> NDArray[np.uint8]:
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def where(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels of exactly this colour."""
    rows, columns = np.nonzero((image == colour).all(axis=2))
    assert len(rows), f"no pixel has the colour {colour}"
    return rows, columns


def solid(colour: tuple[int, int, int], side: int = 8) -> NDArray[np.uint8]:
    return np.full((side, side, 3), colour, np.uint8)


def plot_area(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture without the legend above the axes and the figures beside and below them."""
    return image[60:-85, 105:]


def test_higher_is_higher_and_later_is_further_right(tmp_path: Path) -> None:
    plot_history([epoch(1, 1.0, 0.2), epoch(2, 0.5, 0.8)], tmp_path)
    for name, rises in (("accuracy.png", True), ("loss.png", False)):
        rows, columns = where(plot_area(pixels(tmp_path / name)), EVALUATION)
        first, last = rows[columns.argmin()], rows[columns.argmax()]
        assert (last < first) == rises


def test_training_and_evaluation_lie_where_their_values_are(tmp_path: Path) -> None:
    plot_history([epoch(1, 1.0, 0.5), epoch(2, 1.0, 0.5)], tmp_path)
    loss, accuracy = (plot_area(pixels(tmp_path / name)) for name in ("loss.png", "accuracy.png"))
    assert where(loss, TRAIN)[0].mean() > where(loss, EVALUATION)[0].mean()
    assert where(accuracy, TRAIN)[0].mean() < where(accuracy, EVALUATION)[0].mean()


@pytest.mark.parametrize("best", [1, 3, 5])
def test_ring_lies_around_the_best_evaluation(tmp_path: Path, best: int) -> None:
    history = [epoch(number, *((0.1, 0.9) if number == best else (0.5, 0.5))) for number in range(1, 6)]
    plot_history(history, tmp_path)
    for name, extreme in (("accuracy.png", np.min), ("loss.png", np.max)):
        image = plot_area(pixels(tmp_path / name))
        rows, columns = where(image, EVALUATION)
        ring_rows, ring_columns = where(image, RING)
        assert np.median(ring_columns) == pytest.approx(columns[rows == extreme(rows)].mean(), abs=4)
        assert ring_rows.min() <= extreme(rows) <= ring_rows.max()


def test_one_epoch_is_a_point(tmp_path: Path) -> None:
    plot_history([epoch(1, 0.7, 0.6)], tmp_path)
    image = plot_area(pixels(tmp_path / "accuracy.png"))
    columns = where(image, EVALUATION)[1]
    assert np.ptp(columns) < 20
    assert columns.mean() == pytest.approx(image.shape[1] / 2, rel=0.1)


def test_no_epoch_gives_no_picture(tmp_path: Path) -> None:
    assert plot_history([], tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_every_value_may_be_the_same(tmp_path: Path) -> None:
    written = plot_history([epoch(number, 0.0, 1.0) for number in (1, 2, 3)], tmp_path)
    assert [path.name for path in written] == ["loss.png", "accuracy.png"]


@pytest.mark.parametrize("count", [1, 2, 7, 20, 200])
def test_ticks_are_whole_epochs(count: int) -> None:
    from matplotlib.figure import Figure

    from zoo_harness.reports.plots.run import _prepare_axes

    axes = Figure().add_subplot()
    axes.plot(range(1, count + 1), range(count))
    _prepare_axes(axes, "Loss", list(range(1, count + 1)))
    ticks = [tick for tick in axes.get_xticks() if 0.5 <= tick <= count + 0.5]
    assert ticks
    assert all(tick == int(tick) >= 1 for tick in ticks)


def test_same_history_gives_the_same_bytes_and_leaves_nothing_over(tmp_path: Path) -> None:
    history = [epoch(1, 0.7, 0.6), epoch(2, 0.6, 0.7)]
    first = [path.read_bytes() for path in plot_history(history, tmp_path)]
    again = [path.read_bytes() for path in plot_history(history, tmp_path)]
    assert first == again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.png", "loss.png"]


def test_failed_plot_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "samples.png").write_bytes(b"old")

    def fail(self: Figure, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_samples(solid((255, 0, 0))[None], [0], ["red"], tmp_path / "samples.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("samples.png", b"old")]


def test_colours_are_those_of_the_images_in_the_rows_of_their_classes(tmp_path: Path) -> None:
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    images = np.stack([solid(blue), solid(red), solid(green)])
    plot_samples(images, [2, 0, 1], ["red", "green", "blue"], tmp_path / "s.png")
    image = pixels(tmp_path / "s.png")
    rows = {colour: where(image, colour)[0] for colour in (red, green, blue)}
    assert rows[red].max() < rows[green].min() < rows[green].max() < rows[blue].min()
    counts = {len(found) for found in rows.values()}
    assert max(counts) - min(counts) <= max(counts) // 50


def test_images_are_right_side_up_and_not_mirrored(tmp_path: Path) -> None:
    corners = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255), (1, 1): (200, 0, 200)}
    quarters = np.zeros((8, 8, 3), np.uint8)
    for (down, right), colour in corners.items():
        quarters[down * 4 : down * 4 + 4, right * 4 : right * 4 + 4] = colour
    plot_samples(quarters[None], [0], ["quarters"], tmp_path / "s.png")
    image = pixels(tmp_path / "s.png")
    found = {corner: [axis.mean() for axis in where(image, colour)] for corner, colour in corners.items()}
    assert found[0, 0][0] < found[1, 0][0] - 20
    assert found[0, 1][0] < found[1, 1][0] - 20
    assert found[0, 0][1] < found[0, 1][1] - 20
    assert found[1, 0][1] < found[1, 1][1] - 20


def test_grey_is_not_stretched(tmp_path: Path) -> None:
    images = np.stack([np.full((28, 28), 100, np.uint8), np.full((28, 28), 140, np.uint8)])
    plot_samples(images, [0, 1], ["dark", "light"], tmp_path / "s.png")
    image = pixels(tmp_path / "s.png")
    assert where(image, (100, 100, 100))[0].mean() < where(image, (140, 140, 140))[0].mean()
    plot_samples(images[:1], [0], ["dark"], tmp_path / "s.png")
    where(pixels(tmp_path / "s.png"), (100, 100, 100))


def test_tiny_images_are_enlarged_without_blur(tmp_path: Path) -> None:
    board = np.indices((4, 4)).sum(axis=0) % 2
    plot_samples((board * 200).astype(np.uint8)[None], [0], ["x"], tmp_path / "s.png")
    image = pixels(tmp_path / "s.png")
    tile = image[:, where(image, (200, 200, 200))[1].min() :]
    tile = tile[:, : where(tile, (200, 200, 200))[1].max() + 1]
    inside = tile[10:-10, 2:-2].reshape(-1, 3)
    assert {tuple(pixel) for pixel in inside.tolist()} <= {(0, 0, 0), (200, 200, 200), (255, 255, 255)}


def test_wide_images_keep_their_shape(tmp_path: Path) -> None:
    plot_samples(np.full((1, 10, 30, 3), (255, 0, 0), np.uint8), [0], ["wide"], tmp_path / "s.png")
    rows, columns = where(pixels(tmp_path / "s.png"), (255, 0, 0))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(3, rel=0.1)


def test_grid_has_at_most_ten_rows_and_ten_columns(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(30), 20)
    images = np.zeros((600, 4, 4), np.uint8)
    images[np.arange(600) % 20 < 10] = 120  # the first ten of each class
    images[labels >= 10] = 60
    plot_samples(images, labels, [str(label) for label in range(30)], tmp_path / "s.png")
    image = pixels(tmp_path / "s.png")
    where(image, (120, 120, 120))
    for left_out in (0, 60):
        assert not ((image == left_out).all(axis=2).sum() > 500)


def test_classes_without_images_take_no_room(tmp_path: Path) -> None:
    image = solid((255, 0, 0))[None]
    plot_samples(image, [1], ["a", "b"], tmp_path / "one.png")
    plot_samples(image, [0], ["b", "a"], tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        r"$\undefined{$",
        "x" * 500,
        "",
        "\u732b\U0001f408",
        "line\nbreak",
        "%s & # _ ^ {}",
        "\u06af\u0631\u0628\u0647",
    ],
)
def test_any_name_is_drawn_inside_the_picture(tmp_path: Path, name: str) -> None:
    plot_samples(solid((255, 0, 0))[None], [0], [name], tmp_path / "s.png")
    image = pixels(tmp_path / "s.png")
    text = image[:, : where(image, (255, 0, 0))[1].min() - 2]
    assert text.min() < 100
    assert (text[:, 0] == 255).all()
    assert image.shape[1] < 500


def test_pyplot_is_never_touched(tmp_path: Path) -> None:
    import sys

    plot_history([epoch(1, 0.7, 0.6)], tmp_path)
    plot_samples(solid((255, 0, 0))[None], [0], ["red"], tmp_path / "s.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("training", "shown"),
    [
        (Training(), False),
        (Training(schedule="cosine"), True),
        (Training(warmup_epochs=1), True),
        (SCRATCH.training, True),
    ],
)
def test_learning_rate_is_shown_where_it_changes(tmp_path: Path, training: Training, *, shown: bool) -> None:
    plot_learning_rate(training, 5, 3, tmp_path)
    assert (tmp_path / "learning_rate.png").exists() == shown
    assert plot_learning_rate(training, 0, 3, tmp_path) == ()


def test_learning_rate_falls_as_it_was_set(tmp_path: Path) -> None:
    plot_learning_rate(Training(schedule="multistep", milestones=(5,), decay=0.1), 10, 4, tmp_path)
    rows, columns = where(pixels(tmp_path / "learning_rate.png")[:-85, 140:], RING)
    early, late = rows[columns < np.median(columns) - 50], rows[columns > np.median(columns) + 50]
    assert early.max() < late.min()


@pytest.mark.parametrize(
    ("training", "epochs", "levels"),
    [
        (Training(schedule="multistep", milestones=(2, 4), decay=0.2, learning_rate=0.1, warmup_epochs=1), 6, 3),
        (Training(schedule="multistep", milestones=(2, 4), decay=0.2, learning_rate=0.1), 3, 2),
        (Training(schedule="multistep", milestones=(2, 4), decay=0.2, learning_rate=0.1, warmup_epochs=1), 2, 0),
        (Training(schedule="multistep", milestones=(2, 4), decay=0.99, learning_rate=0.1, warmup_epochs=1), 6, 0),
    ],
    ids=["all", "the first", "none yet", "too near to label"],
)
def test_the_axis_of_the_learning_rate_has_one_format(
    training: Training, epochs: int, levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("zoo_harness.reports.plots.run.save_figure", lambda figure, *_options: figures.append(figure))
    plot_learning_rate(training, epochs, 10, tmp_path)
    (axes,) = figures[0].axes
    axes.figure.draw_without_rendering()
    expected = [training.learning_rate * training.decay**jumps for jumps in range(levels)]
    shown = [label.get_text() for label in axes.yaxis.get_ticklabels(which="both") if label.get_text()]
    assert not any("$" in label or "e" in label for label in shown)
    assert (axes.get_yscale() == "log") == bool(levels)
    if levels:
        assert list(map(float, shown)) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [10, 100])
def test_the_grid_says_how_many_of_the_classes_it_shows(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("zoo_harness.reports.plots.run.save_figure", lambda figure, *_options: figures.append(figure))
    images, names = np.zeros((200, 8, 8), np.uint8), [f"c{place}" for place in range(classes)]
    about = "CIFAR-100 in $x$, test split"
    plot_samples(images, np.arange(200) % classes, names, tmp_path / "s.png", about=about)
    heading = next(text.get_text() for text in figures[0].axes[0].texts)
    assert heading == (about if classes == 10 else f"{about}: 10 of 100 classes")
    texts = [text.get_window_extent() for text in figures[0].axes[0].texts]
    assert all(box.x0 >= 0 and box.x1 <= figures[0].bbox.width and box.y1 <= figures[0].bbox.height for box in texts)


def test_curves_have_the_name_of_their_split_and_a_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("zoo_harness.reports.plots.run.save_figure", lambda figure, *_options: figures.append(figure))
    line = epoch(1, 0.5, 0.5)
    for name in ("held-out", None):
        history = [line.model_copy(update={"evaluation_split": name})]
        plot_history(history, tmp_path, "net on data")
        legend = [text.get_text() for text in figures[-1].legends[0].get_texts()]
        split = name or "evaluation"
        assert legend == ["training", split, f"best {split}: 50.00 %, epoch 1"]
        assert figures[-1].axes[0].get_title() == "net on data"
