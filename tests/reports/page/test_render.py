"""The page of ``zoo report``: its HTML is the golden one, and it works in Chromium, also with hostile names.

After a deliberate change of the page, write the golden file anew and read the difference:

    ZOO_UPDATE_GOLDEN=1 python -m pytest tests/reports/page/test_render.py && git diff tests/golden
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import zoo
from zoo_harness.reports.page.render import _file

from ...report_runs import backbone, write_ranking, write_run, write_runs

GOLDEN = Path(__file__).parents[2] / "golden" / "report.html"
ROWS = "#runs tbody:not([hidden]) tr:not(.set)"
NAMES = f"[...document.querySelectorAll('{ROWS} small')].map(each => each.textContent)"
HOSTILE = (
    "</script><script>alert(1)</script>",
    "\u202eevil\u2066",
    "x" * 10_000,
    "<!--",
    "&lt;b&gt;",
    "\u2028",
    "a|b\\",
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return zoo.report(write_runs(folder / "runs"), out=folder / "report.html").path


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose every name from a record is made to break it."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, name in enumerate(HOSTILE):
        parts: dict[str, Any] = backbone(name, 1000 + number)
        parts["backbone"]["plugin"] = parts["settings"] = {"recipe": name}
        parts["backbone"]["plugin"] = name
        parts |= {"dataset": {"title": name}, "versions": {name: name}, "weights": {"license": name}}
        classes = tuple(f"{name}{each}" for each in range(4))
        write_run(folder / "runs" / f"</title>{number}", 300 + number, number, classes=classes, **parts)
        write_ranking(folder / "runs" / f"<ranked>{number}", name)
    return zoo.report(folder / "runs", out=folder / "report.html").path


# The HTML


def test_the_page_is_the_golden_one(page_file: Path) -> None:
    text = page_file.read_text()
    for name in ("report.css", "report.js"):
        assert text.count(_file(name)) == 1
        text = text.replace(_file(name), f"({name})")
    text = re.sub(r"sha256-[\w+/]+=*", "sha256-(digest)", text)
    if os.environ.get("ZOO_UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_no_name_becomes_markup(hostile_file: Path) -> None:
    text = hostile_file.read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029]", text)
    assert "x" * 400 not in text
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert not re.search("[<>&]", data)
    assert len(json.loads(data)["rows"]) == len(HOSTILE)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_has_enough_contrast(theme: str) -> None:
    found = re.findall(r":root \{([^}]*)\}", _file("report.css"))
    colours = {}
    for declared in found[: 1 + ["light", "dark", "print"].index(theme)]:
        colours |= dict(re.findall(r"--(\w+): (#\w+)", declared))
    for text in ("ink", "dim", "accent", "warm"):
        for ground in ("bg", "soft"):
            one, other = sorted(_luminance(colours[each]) for each in (text, ground))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (text, ground)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


# The page in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests; of the module, because while it is open no other event loop can run."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed; try apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Browser, page_file: Path) -> Iterator[Page]:
    """The page at a desk; console errors and requests fail the test."""
    with _page(browser, page_file) as page:
        yield page


class _page:  # noqa: N801 - used as a function
    """Open a file in a window of its own, and check at the end that it caused no error and no request."""

    def __init__(self, browser: Browser, file: Path, hash_: str = "", **context: Any) -> None:
        self.address = file.as_uri()
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **context})
        self.context.set_default_timeout(10_000)
        self.page, self.hash = self.context.new_page(), hash_
        self.found: list[str] = []

    def __enter__(self) -> Page:
        self.page.on("console", lambda message: self.found.append(message.text))
        self.page.on("pageerror", lambda error: self.found.append(str(error)))
        self.page.on("dialog", lambda dialog: self.found.append(dialog.message))
        self.page.on("request", lambda request: self.found.append(request.url))
        self.page.goto(self.address + self.hash)
        return self.page

    def __exit__(self, *_error: object) -> None:
        self.context.close()
        assert [each for each in self.found if each.partition("#")[0] != self.address] == []


def names(page: Page) -> list[str]:
    found: list[str] = page.evaluate(NAMES)
    return found


def test_a_heading_sorts_the_rows_of_each_set_of_images(opened: Page) -> None:
    first = ["vit_a", "resnet_a", "resnet_b", "convnext_a-*, 3 runs", "vit_b", "flowers/resnet_a", "flowers/vit_a"]
    assert names(opened) == first
    button = opened.get_by_role("button", name="Trained", exact=True)
    button.focus()
    button.press("Enter")
    assert names(opened)[:5] == ["vit_a", "vit_b", "resnet_b", "resnet_a", "convnext_a-*, 3 runs"]
    button.press("Enter")
    assert names(opened)[:5] == ["convnext_a-*, 3 runs", "resnet_a", "resnet_b", "vit_b", "vit_a"]
    assert opened.get_by_role("columnheader", name="Trained").get_attribute("aria-sort") == "ascending"
    assert opened.locator("#runs [aria-sort]").count() == 1
    opened.get_by_role("button", name="sd", exact=True).click()
    assert names(opened)[0] == "convnext_a-*, 3 runs"  # rows without a value are last


def test_filters_choose_rows_and_the_hash_keeps_them(browser: Browser, opened: Page, page_file: Path) -> None:
    opened.get_by_label("Dataset").select_option("0")
    assert len(names(opened)) == 5
    assert opened.locator("section.set:visible").count() == 1
    opened.get_by_label("at least").fill("0.1M")
    assert names(opened) == ["vit_a", "resnet_b", "vit_b"]
    opened.get_by_label("Search").fill("VIT")
    opened.get_by_role("button", name="Trained", exact=True).click()
    opened.get_by_label("Model").check()
    assert names(opened) == ["vit_a", "vit_b"]
    assert opened.locator("#status").text_content() == "2 of 7 rows"
    assert opened.locator(".charts").first.locator("circle[data-r]:not(.off)").count() == 6
    state = opened.evaluate("location.hash")
    with _page(browser, page_file, state) as again:
        assert names(again) == ["vit_a", "vit_b"]
        assert again.get_by_label("Search").input_value() == "VIT"
        assert again.get_by_role("columnheader", name="Family").is_visible()
        assert again.evaluate("location.hash") == state
        again.get_by_role("button", name="Clear").click()
        expect(again).to_have_url(page_file.as_uri())
        assert len(names(again)) == 7
        again.get_by_label("at most").fill("many")
        assert again.get_by_label("at most").get_attribute("aria-invalid") == "true"
        assert len(names(again)) == 7


def test_a_hash_of_another_page_is_harmless(browser: Browser, page_file: Path) -> None:
    with _page(browser, page_file, "#set=99&sort=__proto__&dir=x&min=1e9&columns=%3Cb%3E&license=zzz") as page:
        assert len(names(page)) == 7


def test_the_table_is_copied_as_it_is_filtered(opened: Page) -> None:
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.get_by_label("Search").fill("convnext")
    copied = {}
    for kind in ("CSV", "Markdown", "LaTeX"):
        opened.get_by_role("button", name=kind).click()
        expect(opened.locator("#status")).to_have_text(f"Copied 1 rows as {kind}.")
        copied[kind] = opened.evaluate("navigator.clipboard.readText()").splitlines()
    head, row = (line.split(",") for line in copied["CSV"])
    assert head[:3] == ["images", "run", "backbone"]
    line = next(line for line in copied["CSV"] if "convnext" in line)
    assert "0.885" in line  # the mean of 350, 354 and 358 of 400
    assert len(row) > len(head)  # names with commas are quoted
    assert len({line.count(" | ") for line in copied["Markdown"]}) == 1
    assert copied["Markdown"][2].startswith("| convnext\\_a \N{EN DASH} convnext\\_a-\\*, 3 runs | head | 88.50 ± ")
    assert r"convnext\_a -- convnext\_a-*, 3 runs & head & 88.50 $\pm$ " in copied["LaTeX"][4]


def test_details_show_on_hover_and_focus(opened: Page) -> None:
    point, tip = opened.locator("circle[tabindex]").first, opened.locator("#tip")
    point.focus()
    assert tip.is_visible()
    assert "Accuracy" in (tip.text_content() or "")
    opened.keyboard.press("Escape")
    assert tip.is_hidden()
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.matches('#runs tr')")  # the row of the point
    opened.locator("#runs td", has_text="\N{EN DASH}").first.hover()
    assert "best on its images" in (tip.text_content() or "")


def test_the_confusion_of_another_run_is_drawn(opened: Page) -> None:
    table = opened.locator("#confusion0")
    before = table.text_content()
    opened.locator("[data-confusion]").first.select_option(label="vit_b (vit_b)")
    assert table.text_content() != before
    right = sum(int(text) for text in table.locator("td.d").all_text_contents())
    assert right == 341


@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits_its_window(browser: Browser, page_file: Path, hostile_file: Path, width: int) -> None:
    for file in (page_file, hostile_file):
        with _page(browser, file, viewport={"width": width, "height": 800}) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == width
            background = "getComputedStyle(document.body).backgroundColor"
            page.emulate_media(color_scheme="light")
            assert page.evaluate(background) == "rgb(255, 255, 255)"
            page.emulate_media(color_scheme="dark")
            assert page.evaluate(background) == "rgb(21, 24, 27)"


def test_hostile_names_sort_and_filter(browser: Browser, hostile_file: Path) -> None:
    with _page(browser, hostile_file) as page:
        page.evaluate("document.querySelectorAll('#runs thead button').forEach(each => each.click())")
        page.get_by_label("Search").fill("<script>")
        assert len(names(page)) == 1


def test_the_page_is_whole_without_javascript_and_in_print(browser: Browser, page_file: Path) -> None:
    with _page(browser, page_file, java_script_enabled=False) as page:
        assert page.locator(ROWS).count() == 7
        assert page.locator("#controls").is_hidden()
        assert page.get_by_role("columnheader", name="Licence").first.is_visible()
        assert page.locator(".charts svg").count() == 6
        page.emulate_media(media="print")
        assert page.locator(".matrix").first.is_visible()
        assert page.get_by_role("columnheader", name="Checkpoint").is_hidden()  # paper is not wide enough
