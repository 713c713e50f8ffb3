"""A command takes the options of its class, and passes on those that were typed, with their declared types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner
from typing_extensions import TypedDict

from zoo_harness.cli.command import PANELS, Given, OptionsCommand, command, panels_of
from zoo_harness.cli.main import run as run_zoo
from zoo_harness.records import options as declarations
from zoo_harness.records.option import Option


class Options(TypedDict, total=False):
    count: Annotated[int | None, Option("A count.", 3)]
    color: Annotated[Literal["red", "blue"] | None, Option("A colour.")]
    steps: Annotated[str | Sequence[int] | None, Option("Steps.", metavar="N,N")]
    names: Annotated[Sequence[str] | None, Option("Names; repeatable.")]
    place: Annotated[str | Path | None, Option("A place.")]
    curve: Annotated[bool, Option("A curve.", True, "--curve/--no-curve")]
    fast: Annotated[bool, Option("Be fast.", False, "--fast")]
    scale: Annotated[Literal["none", "full"], Option("A scale, which was a flag once.", "none", bare="full")]


@pytest.fixture
def invoke() -> Callable[..., tuple[str, bool, dict[str, Any]]]:
    """Run a command with arguments, and return its argument, its flag and the options that it was given."""
    received: list[tuple[str, bool, dict[str, Any]]] = []

    def body(
        name: Annotated[str, typer.Argument()], *, given: Given, loud: Annotated[bool, typer.Option("--loud")] = False
    ) -> None:
        """Do it."""
        received.append((name, loud, dict(given)))

    app = typer.Typer(rich_markup_mode=None)
    app.command(cls=OptionsCommand)(command(Options, body))

    def run(*arguments: str) -> tuple[str, bool, dict[str, Any]]:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return received.pop()

    return run


def test_options_that_are_not_typed_are_not_given(invoke: Callable[..., object]) -> None:
    assert invoke("net") == ("net", False, {})


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--count", "3"], {"count": 3}),  # its default, but typed
        (["--scale"], {"scale": "full"}),
        (["--scale", "none"], {"scale": "none"}),
        (["--scale=none"], {"scale": "none"}),
        (["--scale", "--count", "2"], {"scale": "full", "count": 2}),
        (["--color", "green"], {"color": "green"}),  # the function checks choices, with near misses
        (["--steps", "1,2"], {"steps": "1,2"}),
        (["--names", "a", "--names", "b"], {"names": ["a", "b"]}),
        (["--place", "here"], {"place": "here"}),
        (["--no-curve"], {"curve": False}),
        (["--fast"], {"fast": True}),
    ],
)
def test_typed_options_are_given(arguments: list[str], given: dict[str, Any], invoke: Callable[..., object]) -> None:
    assert invoke("net", "--loud", *arguments) == ("net", True, given)


def test_the_signature_has_arguments_options_and_flags_in_this_order() -> None:
    def body(name: str, *, given: Given, loud: bool = False) -> None:
        """Do it."""

    made = command(Options, body)
    names = list(inspect.signature(made).parameters)
    assert names == ["context", "name", *Options.__annotations__, "loud", "_debug"]
    assert made.__doc__ == "Do it."


def test_a_mistyped_value_of_a_bare_option_is_no_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_zoo(["layers", "resnet18", "--normalize", "minmax"]) == 2
    assert capsys.readouterr().err == "error: --normalize 'minmax' is not one of none, zscore\n"
    assert run_zoo(["layers", "--normalize", "resnet18", "--order", "0"]) == 2
    assert "--order" in capsys.readouterr().err  # a name may follow, as it did when the option was a flag
    Path("file").touch()
    assert run_zoo(["si", "--normalize", "file"]) == 1
    assert "normalize" not in capsys.readouterr().err


def test_help_has_a_panel_for_each_class_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_zoo(["eval", "--help"]) == 0
    page = capsys.readouterr().out
    headings = [line.removesuffix(":") for line in page.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == ["Arguments", *PANELS]
    sections = dict(zip(headings, page.split("\n\n")[-len(headings) :], strict=True))
    assert "--learning-rate " in sections["Training"]
    assert "--dataset " in sections["Data"]
    assert "--unfreeze " in sections["What is trained"]
    assert {"--verbose", "--json", "--help"} <= set(sections["Output"].replace(",", " ").split())


def test_the_classes_of_the_panels_exist_and_common_options_have_one_panel() -> None:
    names = [name for several in PANELS.values() for name in several]
    assert all(hasattr(declarations, name) for name in names)
    assert len(names) == len(set(names))
    for options in (declarations.EvalOptions, declarations.RankOptions, declarations.LayersOptions):
        assert (panels_of(options)["device"], panels_of(options)["out"]) == ("Compute", "Output")
    assert panels_of(Options)["count"] == "Options"
