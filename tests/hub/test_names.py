"""How a repository is written, and what is refused."""

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


def test_a_revision_is_what_follows_the_at_sign() -> None:
    assert parse_reference("ada/net@0123abc") == RepositoryReference("ada", "net", "0123abc")
    assert parse_reference("ada/net").revision is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("net", "it has 1 part"),
        ("", "it has 1 part"),
        ("a/b/c", "it has 3 part"),
        ("ada/..", r"it has '\.\.'"),
        ("ada/../net", r"it has '\.\.'"),
        ("../net", r"it has '\.\."),
        ("ada/a..b", r"it has '\.\.'"),
        ("ada/a--b", "it has '--'"),
        ("ada/my net", "it has ' '"),
        ("ada/net\n", r"it has '\\n'"),
        ("ada/nét", "it has 'é'"),
        ("ada/", "a part of it is empty"),
        ("ada/-net", "begins or ends with"),
        ("ada/net.", "begins or ends with"),
        ("ada/net.git", "'.git'"),
        ("https://hub.example/ada/net", "is an address"),
        (f"ada/{'n' * 93}", "97 characters"),
    ],
)
def test_what_cannot_be_a_repository_is_told_with_its_fault(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_reference(text)


@pytest.mark.parametrize("revision", ["", "-x", "a b", "a..b", "/a", "a/", "a~1", "a^", "a:b", "x.lock", "a@{1}", "*"])
def test_what_cannot_be_a_revision_is_told(revision: str) -> None:
    with pytest.raises(UsageError, match="is not a revision; give a branch"):
        parse_reference(f"ada/net@{revision}")
