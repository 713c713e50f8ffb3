"""The bounds on attempts and waits, beside those that tests of downloads and uploads meet."""

from __future__ import annotations

import huggingface_hub
import pytest

from zoo import HubError
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


def test_requested_waits_of_an_operation_add_up(hub: Hub) -> None:
    hub.create("ada/net", {"README.md": b"# A card\n"})
    for method, path in (("GET", "/api/models/ada/net"), ("HEAD", "/ada/net/resolve/*")):
        hub.fail(method, path, 429, headers={"Retry-After": "40"})

    with pytest.raises(HubError) as raised:
        inspect_repository(parse_reference("ada/net"))
    assert (raised.value.code, hub.waits) == ("wait", [40])
    inspect_repository(parse_reference("ada/net"))
