"""Every command and every Python example of README.md and docs/ runs: at toy size, against a Hub on this machine.

The blocks of a page run in the order of the page, in one folder and with one set of Python names, as a reader would
type them. Fenced ``console`` and ``python`` blocks and indented commands are found by themselves. A command that runs
as it is written must print the lines that the page shows below it; ``...`` stands for lines left out.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import save

import zoo
from zoo_harness.cli.main import run

from ..hub_server import OWNER, Hub

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
PUBLISHED = f"{OWNER}/fashion-lite0"

# Commands that no test here runs, by a regular expression, each with the reason.
NOT_RUN = {
    r"pip install": "installs from a registry; test_install.py and `make release-check` install the wheel",
    r"make ": "installs into .venv; CI runs `make check`",
    r"torchrun ": "starts several processes; tests/compute/test_distributed.py and tests/runs do that",
    r"zoo (eval|train) --resume": "needs a run that was cut short; tests/runs/test_resume.py makes them",
}
# Small networks and data in place of those that take minutes; the Hub of the tests has the weights.
TOY_NETWORKS = ("timm:test_resnet", "timm:test_vit", "timm:test_efficientnet")
TOY_DATA = re.compile(r"\b(fashion_mnist|cifar100?)\b")
TOY_SIZES = (
    (re.compile(r"(--per-class |per_class=)\d+"), r"\g<1>2"),
    (re.compile(r"(--epochs |epochs=|--save-every )[1-9]\d*"), r"\g<1>1"),
    (re.compile(r"\bOWNER/NAME\b"), f"{OWNER}/name"),
    (re.compile(r" --recipe (paper|report)\b"), ""),  # the toy networks have no recipe of a study
)
TIMM_NAME = r"timm:[\w.*?\[\]-]+"


@dataclass
class Block:
    """A block of a page: Python, or commands with the lines that the page shows below each."""

    line: int
    python: str = ""
    commands: list[tuple[str, list[str]]] = field(default_factory=list)


def blocks(text: str) -> Iterator[Block]:
    """Find the blocks of a page in order."""
    language, block = "", Block(0)
    for number, line in enumerate(text.splitlines(), 1):
        if fence := re.match(r" *```(\w*)", line):
            if language in ("console", "python"):
                yield block
            language, block = ("" if language else fence[1] or "none"), Block(number)
        elif language == "python":
            block.python += f"{line}\n"
        elif language == "console" and line.startswith("$ "):
            block.commands.append((line.removeprefix("$ "), []))
        elif language == "console" and block.commands:
            block.commands[-1][1].append(line.rstrip())
        elif not language and (command := re.match(r" {4}((zoo|torchrun|make|pip|tensorboard) .*)", line)):
            yield Block(number, commands=[(command[1].partition("  #")[0].strip(), [])])


def toy(text: str) -> str:
    """The same command or code with small networks and data; backbones are replaced in the order they are named."""
    names = "|".join(sorted(zoo.load_registry().backbones, key=len, reverse=True))
    replaced: dict[str, str] = {}

    def network(match: re.Match[str]) -> str:
        return replaced.setdefault(match[0], TOY_NETWORKS[len(replaced)])

    text = re.sub(rf"(?<![\w/:-])(?:{TIMM_NAME}|(?:{names})\b)", network, TOY_DATA.sub("digits", text))
    for pattern, size in TOY_SIZES:
        text = pattern.sub(size, text)
    return text


def toy_command(command: str) -> str:
    """The command at toy size, if it trains or scores a network."""
    small = re.sub(r"\bOWNER/NAME\b", f"{OWNER}/name", command)
    if not re.match(r"zoo (eval|train|layers|rank|stats) ", command) or "--epochs 0" in command:
        return small
    small = toy(command)
    small += "" if "--per-class" in small else " --per-class 2"
    return small + (" --epochs 1" if re.match(r"zoo (eval|train) ", small) and "--epochs" not in small else "")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages speak of (a run, images, a table), and a Hub with weights and a published run."""
    folder = tmp_path_factory.mktemp("documentation")
    with pytest.MonkeyPatch.context() as patch, Hub() as hub:
        hub.use_here(patch, tmp_path_factory.mktemp("hf"))
        patch.setenv("COLUMNS", "120")
        patch.setenv("KERAS_HOME", str(folder / "keras"))
        for name in TOY_NETWORKS:
            network = timm.create_model(name.removeprefix("timm:"), pretrained=False)
            tag = network.pretrained_cfg["hf_hub_id"]
            hub.create(tag, {"model.safetensors": save({k: v.contiguous() for k, v in network.state_dict().items()})})
        save_images(folder)
        made = zoo.evaluate(TOY_NETWORKS[0], "digits", per_class=2, epochs=1, out=folder / "runs" / "fashion")
        zoo.publish(made, to=PUBLISHED)
        hub.repositories[f"{OWNER}/name"] = replace(hub.repositories[PUBLISHED], id=f"{OWNER}/name")
        yield folder


def save_images(folder: Path) -> None:
    """Make ``photos`` with two classes, single images, and a table of flowers."""
    draw = np.random.default_rng(0)
    places = [f"photos/{split}/{kind}/{n}.png" for split in ("train", "test") for kind in "ab" for n in range(4)]
    places += ["photos/a.png", "photos/b.png", "shoe.png", "shoe.jpg", *(f"flowers/{n}.png" for n in range(16))]
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / place)
    rows = [f"{n}.png,{'rose' if n % 2 else 'daisy'},{'train' if n < 12 else 'test'}" for n in range(16)]
    (folder / "flowers" / "labels.csv").write_text("\n".join(["image,species,part", *rows]) + "\n")
    (folder / "notes.txt").write_text("no image\n")


def given_names() -> dict[str, Any]:
    """What a Python example may use without making it: the names that its page explains."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20) % 4
    features = torch.nn.Flatten()
    return {
        "zoo": zoo,
        "images": images,
        "labels": labels,
        "test_images": images[:8],
        "test_labels": labels[:8],
        "image": PIL.Image.fromarray(images[0]),
        "batches": [(torch.rand(20, 3, 4, 4), torch.arange(20) % 4)],
        "backbone": features,
    }


def run_command(written: str, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command at toy size; it must end as the page shows, and print its lines if it ran as written."""
    command = toy_command(written)
    words = shlex.split(command)
    assert words[0] == "zoo", f"{written}: add its program to NOT_RUN with the reason"
    for option in ("--out", "--to"):
        if option in words[:-1] and not (target := words[words.index(option) + 1]).startswith(OWNER):
            shutil.rmtree(target, ignore_errors=True)
    capsys.readouterr()
    status = run(words[1:])
    printed = capsys.readouterr()
    fails = any(line.startswith("error: ") for line in shown)
    assert (status != 0) == fails, f"{command}: exit status {status}\n{printed.err}"
    if command == written and words[1] in ("list", "show", "datasets", "plugins"):
        assert missing_line(shown, printed.out.splitlines()) is None, f"{command} printed\n{printed.out}"


def missing_line(shown: list[str], printed: list[str]) -> str | None:
    """The first shown line that was not printed after the one before it, or nothing."""
    rest = iter(line.rstrip() for line in printed)
    return next((line for line in shown if line.strip() != "..." and line not in rest), None)


def is_run(command: str) -> bool:
    return not any(re.match(pattern, command) for pattern in NOT_RUN)


@pytest.mark.parametrize("page", PAGES)
def test_every_example_of_a_page_runs(
    page: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / page).read_text()
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for name in set(re.findall(r"\bruns/(\w+)", text)) - {"fashion"}:
        shutil.copytree("runs/fashion", f"runs/{name}")
    example = types.ModuleType("example")
    vars(example).update(given_names())
    monkeypatch.setitem(sys.modules, "example", example)
    for block in blocks(text):
        try:
            exec(compile(toy(block.python), page, "exec"), vars(example))  # noqa: S102
            for command, shown in block.commands:
                if is_run(command):
                    run_command(command, shown, capsys)
        except Exception as error:
            error.add_note(f"{page}:{block.line}")
            raise


def test_every_exception_is_of_use() -> None:
    found = [command for page in PAGES for block in blocks((ROOT / page).read_text()) for command, _ in block.commands]
    assert {pattern for pattern in NOT_RUN if not any(re.match(pattern, command) for command in found)} == set()
    assert sum(map(is_run, found)) > len(found) / 2


def test_blocks_are_found_with_the_lines_that_they_show() -> None:
    console = "```console\n$ zoo list\none\n...\n$ zoo show x\n```\n"
    found = list(blocks(f"# A\n\n{console}\n    zoo si f.npz  # why\n\n```python\nx = 1\n```\n"))
    assert [block.line for block in found] == [3, 10, 12]
    assert found[0].commands == [("zoo list", ["one", "..."]), ("zoo show x", [])]
    assert found[1].commands == [("zoo si f.npz", [])]
    assert found[2].python == "x = 1\n"


def test_a_line_that_is_not_printed_is_found() -> None:
    assert missing_line(["a", "...", "c"], ["a", "b", "c  "]) is None
    assert missing_line(["a", "c", "b"], ["a", "b", "c"]) == "b"


def test_a_dear_command_becomes_a_cheap_one_of_the_same_kind() -> None:
    small = toy_command("zoo rank --dataset imagefolder:photos resnet18 'timm:vit_*_dinov2*' efficientnet_lite0")
    assert small.split()[4:7] == ["timm:test_resnet", "'timm:test_vit'", "timm:test_efficientnet"]
    small = toy_command("zoo eval vgg16 --dataset cifar10 --per-class 50 --epochs 3")
    assert small == "zoo eval timm:test_resnet --dataset digits --per-class 2 --epochs 1"
    assert toy_command("zoo show vgg16") == "zoo show vgg16"
