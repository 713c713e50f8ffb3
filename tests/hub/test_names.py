"""The names of repositories and revisions that the Hub allows, and those that it forbids."""

from __future__ import annotations

import pytest
from huggingface_hub.utils import validate_repo_id

from zoo import UsageError
from zoo_harness.hub.names import RepositoryReference, parse_reference


@pytest.mark.parametrize("text", ["ada/net", "a/b", "Ada-1/net_2.0", "_a/b_", "ada/net@v1.0", "ada/net@refs/pr/3"])
def test_a_name_is_read_and_written_the_same(text: str) -> None:
    reference = parse_reference(text)

    assert str(reference) == text
    validate_repo_id(reference.id)


def test_a_revision_follows_the_at_sign() -> None:
    assert parse_reference("ada/net@0123abc") == RepositoryReference("ada", "net", "0123abc")
    assert parse_reference("ada/net").revision is None


@pytest.mark.parametrize(
    "text",
    [
        *("net", "", "a/b/c", "ada/", "ada/..", "ada/../net", "../net", "ada/a..b", "ada/a--b", "ada/my net"),
        *("ada/net\n", "ada/nét", "ada/-net", "ada/net.", "ada/net.git", "ada.git/net", "https://hub.example/ada/net"),
        f"ada/{'n' * 93}",
    ],
)
def test_a_name_that_the_hub_forbids_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_reference(text)
    assert (raised.value.code, raised.value.facts["given"]) == ("not-a-repository", text)


@pytest.mark.parametrize(
    "revision",
    ["", "-x", "a b", "a..b", "/a", "a/", "a~1", "a^", "a:b", "x.lock", "x.lock/y", "a@{1}", "*", "a\n", ".a", "a."],
)
def test_a_revision_that_git_forbids_is_refused(revision: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_reference(f"ada/net@{revision}")
    assert (raised.value.code, raised.value.facts["given"]) == ("not-a-revision", revision)
