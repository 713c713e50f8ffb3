"""Parse files of JSON lines, which hold one record per line, such as ``history.jsonl`` and ``steps.jsonl``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Line = TypeVar("Line", bound=BaseModel)


class InvalidLineError(ValueError):
    """Raised if a line is not a record or does not fit the previous line; ``line`` is the line number, from 1."""

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
    r"""Parse one record per line; a last line without a line break is ignored, because it may be incomplete.

    ``fault`` takes a record and the previous record, and returns an error text if the two are in the wrong order.
    ``strict=True`` refuses values whose JSON type differs from the declared type. Raises :class:`InvalidLineError`.

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
