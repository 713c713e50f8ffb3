"""The log of steps is read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo import DataError
from zoo_harness.records.steps import StepRecord, read_steps

STEP = StepRecord(step=5, epoch=2, loss=0.25, learning_rate=0.1, images_per_second=80.5)
LATER = STEP.model_copy(update={"step": 10})
ONE, TWO = (f"{step.model_dump_json()}\n" for step in (STEP, LATER))


def test_steps_are_read_in_order_and_a_line_that_is_being_written_is_left(tmp_path: Path) -> None:
    assert read_steps(tmp_path) == ()
    (tmp_path / "steps.jsonl").write_text(ONE + TWO + '{"step":15,"ep')
    assert read_steps(tmp_path) == (STEP, LATER)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("not JSON\n", 1),
        (ONE + ONE, 2),
        (TWO + ONE, 2),
        (ONE + TWO.replace('"epoch":2', '"epoch":1'), 2),
        (ONE.replace("0.25", "NaN"), 1),
        (ONE.replace("0.25", '"0.25"'), 1),
        (ONE.replace("0.25", "-1"), 1),
        (ONE.replace('"step":5', '"step":0'), 1),
        (ONE[:-2] + ', "more": 1}\n', 1),
        (ONE + "\n", 2),
    ],
)
def test_a_file_that_is_no_log_of_steps_is_refused(content: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text(content)
    with pytest.raises(DataError) as refused:
        read_steps(tmp_path)
    assert (refused.value.code, refused.value.facts["line"]) == ("steps-invalid", line)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").symlink_to("/dev/zero")
    with pytest.raises(DataError) as refused:
        read_steps(tmp_path)
    assert refused.value.code == "not-a-file"


def test_a_log_that_cannot_be_opened_is_an_error_of_ours(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text("a file where the folder should be")  # opening run/steps.jsonl raises NotADirectoryError
    with pytest.raises(DataError) as refused:
        read_steps(run)
    assert refused.value.code == "not-a-file"
