"""Imports point one way, ``zoo_plugins -> zoo <- zoo_harness -> zoo_cards``, and ``import zoo`` costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "zoo": ROOT / "zoo",
    "zoo_harness": ROOT / "harness" / "zoo_harness",
    "zoo_plugins": ROOT / "plugins" / "zoo_plugins",
    "zoo_cards": ROOT / "cards" / "zoo_cards",
}
HEAVY = (
    "torch",
    "timm",
    "torchvision",
    "datasets",
    "huggingface_hub",
    "numpy",
    "transformers",
    "sklearn",
    "matplotlib",
    "PIL",
    "safetensors",
    "zoo_harness",
)


def imports(tree: ast.AST, *, when_loaded_only: bool) -> Iterator[str]:
    """The top-level names that a module imports; of those under ``if TYPE_CHECKING`` none."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            children: list[ast.AST] = [ast.Module(node.orelse, [])]
        elif when_loaded_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            children = []
        else:
            children = [node]
            yield from _named_by(node)
        for child in children:
            yield from imports(child, when_loaded_only=when_loaded_only)


def _named_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import of {node.module!r}: write it out"
        return [(node.module or "").split(".")[0]]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
        first = node.args[0]
        return [first.value.split(".")[0]] if isinstance(first, ast.Constant) else []
    return []


def offences(package: str, forbidden: set[str], *, when_loaded_only: bool) -> list[str]:
    """Lines such as ``zoo/registry.py imports torch``, for every forbidden import of a package."""
    paths = sorted(PACKAGES[package].rglob("*.py"))
    assert paths
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(ast.parse(path.read_text()), when_loaded_only=when_loaded_only)
        if name in forbidden
    ]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("zoo", {"zoo_plugins", "zoo_cards"}),
        ("zoo_harness", {"zoo_plugins"}),
        ("zoo_plugins", {"zoo_harness", "zoo_cards"}),
        ("zoo_cards", {"zoo", "zoo_harness", "zoo_plugins"}),
    ],
)
def test_no_package_imports_against_the_arrows(package: str, forbidden: set[str]) -> None:
    assert offences(package, forbidden, when_loaded_only=False) == []


def test_zoo_imports_the_harness_only_when_a_name_of_it_is_used() -> None:
    door = "zoo/testing.py imports zoo_harness"
    assert offences("zoo", {"zoo_harness"}, when_loaded_only=True) == [door]


def test_the_reader_of_imports_sees_what_it_should() -> None:
    module = ast.parse(
        "import a.b\nif TYPE_CHECKING:\n    import b\nelse:\n    import c\ntry:\n    from d.e import f\n"
        "except ImportError:\n    pass\ndef g():\n    import h\n    importlib.import_module('i.j')\n"
    )

    assert list(imports(module, when_loaded_only=True)) == ["a", "c", "d"]
    assert list(imports(module, when_loaded_only=False)) == ["a", "c", "d", "h", "i"]


def test_the_registry_loads_without_anything_heavy() -> None:
    program = (
        "import sys, zoo\n"
        "registry = zoo.load_registry()\n"
        "assert registry.backbones and registry.datasets, registry.problems\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("", "")
