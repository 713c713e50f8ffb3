"""Codes, statuses and advice of errors; the real client against a Hub on loopback that refuses."""

from __future__ import annotations

import copy

import pytest

from zoo import HubError
from zoo_harness.hub.errors import is_transient, translate_hub_errors
from zoo_harness.hub.names import parse_reference
from zoo_harness.hub.upload import inspect_repository

from ..hub_server import WRITER, Hub


@pytest.mark.parametrize(
    ("status", "error_code", "code", "advice"),
    [
        (401, None, "invalid-token", "hf auth login"),
        (403, None, "forbidden", "use a token with that right"),
        (403, "GatedRepo", "gated", "request access"),
        (409, None, "conflict", "try again"),
        (412, None, "changed", "run the command again"),
        (413, None, "other", "status 413"),
        (429, None, "rate-limit", "wait some minutes"),
        (500, None, "server-error", "try again later"),
        (501, None, "not-supported", "omit --create-pr"),
        (511, None, "login-page", "open any page in a browser"),
    ],
)
def test_each_status_has_a_code_and_advice(
    hub: Hub, status: int, error_code: str | None, code: str, advice: str
) -> None:
    hub.create("ada/net")
    headers = {"X-Error-Code": error_code} if error_code else {}
    hub.fail("GET", "/api/models/ada/net", status, times=99, headers=headers)

    with pytest.raises(HubError) as raised:
        inspect_repository(parse_reference("ada/net"))
    error = raised.value
    assert (error.status, error.code, error.repository) == (status, code, "ada/net")
    assert advice in str(error)
    again = copy.copy(error)  # as between processes, by its reduced form
    assert (str(again), again.status, again.code) == (str(error), status, code)


def test_the_words_of_the_hub_are_quoted_without_the_token(hub: Hub) -> None:
    hub.create("ada/net")
    hub.fail("GET", "/api/models/ada/net", 418, headers={"X-Error-Message": f"no tea for {WRITER}"})

    with pytest.raises(HubError, match=r"\(the Hub says: no tea for \(a token\)"):
        inspect_repository(parse_reference("ada/net"))


def test_a_token_that_is_not_ascii_is_named_as_that(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh1234567ä")
    with pytest.raises(HubError, match="not ASCII") as raised:
        inspect_repository(parse_reference("ada/net"))
    assert raised.value.code == "invalid-token"
    assert "hf_abc" not in str(raised.value)


def test_an_answer_in_the_words_of_hf_xet_is_no_lost_connection(hub: Hub) -> None:
    text = "Network error: Request error: HTTP status client error (404 Not Found), domain: http://127.0.0.1/x"
    assert not is_transient(ConnectionError(text))
    assert is_transient(ConnectionError(text.replace("404", "503")))
    assert is_transient(ConnectionError("reset"))
    reference = parse_reference("ada/net")
    with (
        pytest.raises(HubError, match="HF_HUB_DISABLE_XET=1") as raised,
        translate_hub_errors("publish to", reference),
    ):
        raise ConnectionError(text)
    assert raised.value.code == "xet"
