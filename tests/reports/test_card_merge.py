"""A card that a person has edited is merged: not a line of theirs is lost, and nothing of an earlier run stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from zoo import DataError
from zoo_harness.reports.card_merge import BEGIN, END, marked, merged_card, read_card

NEW = "---\nlicense: mit\ntags:\n- timm\n- zoo\nmodel-index:\n- name: new\n  results: []\n---\n\n" + marked(
    "# New\n\nOurs."
)


def card(front: str, body: str) -> str:
    return f"---\n{front}---\n{body}"


def front_of(text: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return content


@pytest.mark.parametrize("old", [None, "", " \n\n"])
def test_where_there_is_no_card_the_new_one_is_it(old: str | None) -> None:
    assert merged_card(old, NEW) == NEW


def test_the_same_card_again_changes_nothing() -> None:
    assert merged_card(NEW, NEW) == NEW
    edited = NEW.replace("license: mit\n", "license: mit\nlanguage: en # mine\n") + "\nMine.\n"
    once = merged_card(edited, NEW)
    assert merged_card(once, NEW) == once


def test_text_before_and_after_our_part_stays_to_the_byte() -> None:
    before, after = "\n# My own title \n\n", "\n## Mine\r\n\tas I wrote it  \n```\n---\n```\n"
    old = card("license: mit\n", f"{before}{marked('# Old')}{after}")
    merged = merged_card(old, NEW)
    assert merged.endswith(f"---\n{before}{marked('# New' + chr(10) * 2 + 'Ours.')}{after}")
    assert "Old" not in merged


def test_keys_of_others_stay_as_they_were_written_and_ours_are_set_anew() -> None:
    front = (
        "license: apache-2.0\n# why this language\nlanguage: [en,   fa]  # both\nmodel-index:\n- name: old\n"
        "extra_gated_prompt: |\n  # not a comment\n  Read ---\n  this.\nbase_model: timm/old\n# the last word\n"
    )
    merged = merged_card(card(front, marked("# Old")), NEW)
    assert "# why this language\nlanguage: [en,   fa]  # both\n" in merged
    assert "extra_gated_prompt: |\n  # not a comment\n  Read ---\n  this.\n" in merged
    assert "# the last word\n" in merged
    found = front_of(merged.replace("Read ---\n", "Read\n"))
    assert (found["license"], found["model-index"][0]["name"]) == ("mit", "new")
    assert "base_model" not in found
    assert merged_card(merged, NEW) == merged


def test_what_we_cannot_say_a_person_may() -> None:
    new = NEW.replace("license: mit\n", "")
    old = card("license: cc-by-4.0\ndatasets:\n- me/flowers\nmodel-index:\n- name: old\n", marked("# Old"))
    found = front_of(merged_card(old, new.replace("model-index:\n- name: new\n  results: []\n", "")))
    assert (found["license"], found["datasets"]) == ("cc-by-4.0", ["me/flowers"])
    assert "model-index" not in found


def test_another_licence_takes_the_old_name_and_link_with_it() -> None:
    old = card("license: other\nlicense_name: mine\nlicense_link: https://example.org/mine\n", marked("# Old"))
    assert not {"license_name", "license_link"} & set(front_of(merged_card(old, NEW)))
    same = NEW.replace("license: mit\n", "license: other\nlicense_name: mine\n")
    assert front_of(merged_card(old, same))["license_link"] == "https://example.org/mine"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("tags: [flowers, zoo, transformers]\n", ["timm", "zoo", "flowers"]),
        ("tags: flowers\n", ["timm", "zoo", "flowers"]),
        ("tags:\n", ["timm", "zoo"]),
        ("tags: {a: b}\n", ["timm", "zoo"]),
        ("", ["timm", "zoo"]),
    ],
)
def test_tags_are_united_and_those_of_ours_that_no_longer_hold_go(written: str, expected: list[str]) -> None:
    assert front_of(merged_card(card(written, marked("# Old")), NEW))["tags"] == expected


def test_a_card_whose_front_matter_was_taken_out_gets_it_back() -> None:
    merged = merged_card(f"My title\n\n{marked('# Old')}", NEW)
    assert merged == f"{NEW.partition(BEGIN)[0].rstrip()}\nMy title\n\n{BEGIN}{NEW.partition(BEGIN)[2]}"


@pytest.mark.parametrize(
    "old",
    [
        pytest.param(NEW.replace("\n", "\r\n"), id="line ends of Windows"),
        pytest.param("\ufeff" + NEW, id="byte order mark"),
        pytest.param("\n" + NEW, id="blank line first"),
        pytest.param(NEW.replace(BEGIN, "  <!--zoo:begin-->  "), id="spaces"),
        pytest.param(NEW.rstrip("\n"), id="no line end"),
    ],
)
def test_what_an_editor_changes_is_no_damage(old: str) -> None:
    merged = merged_card(old, NEW)
    assert merged.count(BEGIN) == merged.count(END) == 1
    assert front_of(merged.replace("\r\n", "\n")) == front_of(NEW)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("# By hand\n", []),
        (f"{BEGIN}\n# Old\n", ["begin"]),
        (f"# Old\n{END}\n", ["end"]),
        (f"{END}\n# Old\n{BEGIN}\n", ["end", "begin"]),
        (marked("# Old") * 2, ["begin", "end"] * 2),
        (f"{BEGIN}\n{BEGIN}\n# Old\n{END}\n", ["begin", "begin", "end"]),
        (f"{BEGIN}\n# Old\n{END} and my own words\n", ["begin"]),
    ],
)
def test_damaged_markers_are_refused_with_advice(body: str, found: list[str]) -> None:
    with pytest.raises(DataError, match=f"one line {BEGIN} before the part and one line {END} after it") as refused:
        merged_card(card("license: mit\n", body), NEW)
    assert (refused.value.code, refused.value.facts["found"]) == ("card-markers", found)


@pytest.mark.parametrize(
    ("front", "fault"),
    [
        ("license: [mit\n", "not YAML"),
        ("a: b: c\n", "not YAML"),
        ("\tlicense: mit\n", "not YAML"),
        ("a: " + "[" * 60_000 + "\n", "its values are nested more than 32 levels deep"),
        ("a: " + "[" * 4000 + "]" * 4000 + "\n", "its values are nested more than 32 levels deep"),
        ("- " * 4000 + "a\n", "its values are nested more than 32 levels deep"),
        ("a: " + "x" * 70_000 + "\n", "it has 70,004 characters"),
        ("!!python/object/apply:os.system ['true']\n", "not YAML"),
        ("- a\n- b\n", "expected lines KEY: VALUE"),
        ("just words\n", "expected lines KEY: VALUE"),
        ("{license: mit}\n", "expected lines KEY: VALUE"),
        ("a: &x [1]\nlicense: *x\n", "it uses aliases"),
        ("when: 2026-99-99\n", "not YAML"),
        (None, "expected a closing line"),
    ],
)
def test_front_matter_that_cannot_be_read_is_refused(front: str | None, fault: str) -> None:
    old = f"---\nlicense: mit\n\n{marked('# Old')}" if front is None else card(front, marked("# Old"))
    with pytest.raises(DataError, match="move it away") as refused:
        merged_card(old, NEW)
    assert refused.value.code == "card-front-matter"
    assert str(refused.value.facts["fault"]).startswith(fault)


@settings(deadline=None, max_examples=80)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.dictionaries(st.from_regex(r"[a-z]{1,8}_x", fullmatch=True), st.text("ab:#-\n' \"{", max_size=30), max_size=3),
)
def test_nothing_a_person_adds_is_lost(text: str, keys: dict[str, str]) -> None:
    front = yaml.safe_dump({"license": "mit", **keys}, allow_unicode=True)
    merged = merged_card(card(front, f"\n{text}\n{marked('# Old')}{text}"), NEW)
    assert merged.endswith(END + "\n" + text)
    assert f"---\n\n{text}\n{BEGIN}" in merged
    found = yaml.safe_load(merged[4 : merged.index("\n---\n", 4) + 1])
    assert {key: found[key] for key in keys} == keys
    assert merged_card(merged, NEW) == merged


def test_a_card_that_is_not_text_is_refused(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"caf\xe9")
    with pytest.raises(DataError) as refused:
        read_card(tmp_path)
    assert refused.value.code == "card-encoding"
