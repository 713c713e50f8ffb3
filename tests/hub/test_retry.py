"""The bounds on attempts and waits, beside those that tests of downloads and uploads meet."""

from __future__ import annotations

from types import SimpleNamespace

import huggingface_hub
import pytest

from zoo import HubError
from zoo_harness.hub import retry
from zoo_harness.hub.names import parse_reference
from zoo_harness.hub.upload import inspect_repository

from ..hub_server import Hub


def test_the_session_of_the_client_is_left_as_it_was(hub: Hub) -> None:
    hub.create("ada/net")
    before = list(huggingface_hub.get_session().event_hooks["response"])
    inspect_repository(parse_reference("ada/net"))
    hub.fail("GET", "/api/models/*", 403)
    with pytest.raises(HubError):
        inspect_repository(parse_reference("ada/net"))

    assert huggingface_hub.get_session().event_hooks["response"] == before


def test_waits_in_a_row_add_up_and_parallel_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(retry, "monotonic", lambda: clock[0])
    budget = retry.RetryBudget(lambda _line: None)

    def request_to_wait(name: str) -> SimpleNamespace:
        request = SimpleNamespace(method="GET", url=name)
        return SimpleNamespace(request=request, status_code=429, headers={"Retry-After": "40"})

    for name in "abcdefgh":
        budget.check_response(request_to_wait(name))
    clock[0] = 41
    with pytest.raises(retry.RetriesExhaustedError) as raised:
        budget.check_response(request_to_wait("i"))
    assert raised.value.wait == 40


def test_attempts_without_a_response_end_after_a_minute(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 70))
    monkeypatch.setattr(retry, "monotonic", lambda: float(next(clock)))
    hub.create("ada/net")
    hub.fail("GET", "/api/models/ada/net", "cut", times=99)

    with pytest.raises(HubError) as raised:
        inspect_repository(parse_reference("ada/net"))
    assert raised.value.code == "no-connection"
    assert len(hub.seen("GET", "/api/models/ada/net")) == 2
