"""Parse files of JSON lines, one record a line, such as ``history.jsonl`` and ``steps.jsonl``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Line = TypeVar("Line", bound=BaseModel)


class InvalidLineError(ValueError):
    """A line that is not a record, or does not follow the line before; ``line`` is its number, from 1."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line:,}: {fault:.200}")
        self.line = line


def parse_lines(
    content: bytes,
    record: type[Line],
    fault: Callable[[Line, Line | None], str | None],
    *,
    strict: bool | None = None,
) -> tuple[Line, ...]:
    r"""Return the records in the lines; a last line without an end is ignored, because it may be incomplete.

    ``fault`` gets a record and the one before, and returns what is wrong with their order. ``strict``: refuse numbers
    of another type. Raises :class:`InvalidLineError`.

    >>> class Step(BaseModel):
    ...     step: int
    >>> [found.step for found in parse_lines(b'{"step": 1}\n{"step": 2}\n{"st', Step, lambda _new, _before: None)]
    [1, 2]
    """
    *lines, _unfinished = content.split(b"\n")
    found: list[Line] = []
    for number, line in enumerate(lines, 1):
        try:
            new = record.model_validate_json(line, strict=strict)
        except ValidationError as error:
            raise InvalidLineError(number, error.errors(include_url=False)[0]["msg"]) from error
        if wrong := fault(new, found[-1] if found else None):
            raise InvalidLineError(number, wrong)
        found.append(new)
    return tuple(found)
