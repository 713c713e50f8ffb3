"""Every error has a code, and one golden file holds the wording of all messages.

ZOO_UPDATE_GOLDEN=1 python -m pytest tests/packaging/test_messages.py && git diff tests/golden/messages.txt
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from zoo import errors

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "messages.txt"
SOURCES = ("zoo", "harness/zoo_harness", "plugins/zoo_plugins")
ERRORS = {
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.ZooError)
}
# They make their message themselves, and have a code of their own.
OWN_CODE = {"UnknownNameError", "UnreachableError"}
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*|<.+>")


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every place where one of our errors is made, with its message in place of a variable that holds it."""
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            nodes = list(ast.walk(ast.parse(path.read_text())))
            assigned = [node for node in nodes if isinstance(node, ast.Assign)]
            for node in nodes:
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                    if node.args and ast.unparse(node.args[0]) == "message":
                        node.args[0] = last_message(assigned, node.lineno) or node.args[0]
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def last_message(assigned: list[ast.Assign], line: int) -> ast.expr | None:
    """The value that ``message`` was given last before a line."""
    found = [node for node in assigned if ast.unparse(node.targets[0]) == "message" and node.lineno < line]
    return max(found, key=lambda node: node.lineno).value if found else None


def code_of(call: ast.Call) -> str:
    """The code as it stands there, without quotes if it is text; nothing if there is none."""
    found = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
    if not found:
        return ""
    return str(found[0].value) if isinstance(found[0], ast.Constant) else f"<{ast.unparse(found[0])}>"


def test_every_error_has_a_code() -> None:
    without = [
        where
        for where, call in raised()
        if isinstance(call.func, ast.Name) and call.func.id not in OWN_CODE and not CODE.fullmatch(code_of(call))
    ]
    assert without == []


def test_the_messages_are_the_golden_ones() -> None:
    lines = sorted(
        {
            f"{code_of(call) or ast.unparse(call.func)}: {ast.unparse(call.args[0])}"
            for _where, call in raised()
            if call.args
        }
    )
    text = "\n".join(lines) + "\n"
    if os.environ.get("ZOO_UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
