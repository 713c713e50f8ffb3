"""Closed streams, pipes whose reader has ended, full disks, and names that would control the terminal."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings

import PIL.Image
import pytest

from zoo.image_reader import ImageReader
from zoo_harness.cli import app, output
from zoo_harness.cli.main import run
from zoo_harness.runs.display import ProgressDisplay

HOSTILE = "a\x1b[31m\x9b1m\u202eb\udcff"
ESCAPED = r"a\u001b[31m\u009b1m\u202eb\udcff"
ZOO = f'"{sys.executable}" -c "from zoo_harness.cli.main import main; main()"'


@pytest.mark.parametrize(
    ("command", "status", "printed"),
    [
        ("zoo list >&-", 0, ""),
        ("zoo list >&- 2>&-", 0, ""),
        ("zoo show nonsense 2>&-", 2, ""),
        ("zoo show nonsense 2>/dev/full", 2, ""),
        ("zoo --version <&- 2>&-", 0, "blockzoo"),
        ("zoo --version >&-", 0, ""),
        ("set -o pipefail; zoo list | true", 0, ""),
        ("set -o pipefail; zoo show efficientnet_lite0 | head -n 1", 0, "EfficientNet"),
        ("zoo datasets --json | head -n 1", 0, "["),
        ("set -o pipefail; zoo show nonsense 2>&1 >/dev/null | true", 2, ""),
        ("zoo list >/dev/full", 1, "error: No space left on device"),
    ],
)
def test_streams_that_are_closed_or_full(command: str, status: int, printed: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", f'zoo() {{ {ZOO} "$@"; }}; {command}'], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == status
    assert (ended.stdout + ended.stderr).startswith(printed)
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert len(ended.stderr.splitlines()) <= 1


def test_a_closed_stream_is_no_number_for_other_files() -> None:
    """What a command opens must not become its standard output."""
    program = (
        "import os; from zoo_harness.cli.streams import guard_streams as g; g(); print(os.open('/dev/null', 0) > 2)"
    )
    ended = subprocess.run(
        ["bash", "-c", f"\"{sys.executable}\" -c \"{program}; open('/dev/fd/9', 'w').write('done')\" 9>&1 >&- <&-"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr) == ("done", "")


def test_names_are_escaped_in_every_output(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["name"], [[HOSTILE]])
    output.print_json({"name": HOSTILE})
    output.print_lines(HOSTILE)
    output.tell(HOSTILE)
    with ProgressDisplay() as display:
        display.log(HOSTILE)
        display.warn(HOSTILE)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["name", ESCAPED, "{", f'  "name": "{ESCAPED}"', "}", ESCAPED]
    assert json.loads("".join(captured.out.splitlines()[2:5])) == {"name": HOSTILE}
    assert captured.err.splitlines() == [ESCAPED, ESCAPED, f"warning: {ESCAPED}"]


@pytest.mark.parametrize("arguments", [["list"], ["list", "--quiet"], ["list", "-q"]])
def test_pillows_warning_of_large_images_is_for_nobody_and_others_are_not_for_quiet_commands(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    file = io.BytesIO()
    PIL.Image.new("RGB", (80, 80)).save(file, "PNG")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4000)

    def look(**_options: object) -> None:
        with PIL.Image.open(file) as image:
            ImageReader().upright(image, "large")
        warnings.warn("of another library", UserWarning, stacklevel=1)

    def command() -> object:
        return lambda **_options: look()

    monkeypatch.setattr(app, "command", command)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(arguments) == 0
        seen = [str(each.message) for each in caught]
    assert seen == ([] if len(arguments) > 1 else ["of another library"])
