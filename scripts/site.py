"""Build the documentation site in build/site/html: collect the pages, run Sphinx strictly, and check the HTML.

The pages are the Markdown files of the repository. The files stay in their folders, so that their links also work in a
checkout. ``page_of`` decides the path of each page in the site, and the script changes the links to these paths.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
OWN_PAGES = Path("docs/site")
BUILD = ROOT / "build" / "site"
PLACES = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing/guide.md",
    "SECURITY.md": "contributing/security.md",
    "docs/release.md": "contributing/release.md",
    "benchmarks/README.md": "contributing/benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "docs/separation.md": "concepts/separation.md",
    "docs/exact-neighbours.md": "concepts/exact-neighbours.md",
    "docs/commands.md": "reference/commands.md",
    "plugins/example/README.md": "howto/example-plugin.md",
}
# A link to a folder becomes a link to this page.
FOLDERS = {"cards": "docs/site/backbones/index.md", "plugins/example": "plugins/example/README.md"}
LINK = re.compile(r"(?P<before>\]\(<?)(?P<target>[^)\s>]+)|(?P<attribute>\b(?:src|srcset|href)=\")(?P<file>[^\"]+)")
CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


class SiteError(Exception):
    """The site cannot be built, because a page, a link or a loaded file is wrong."""


def main() -> int:
    """Build the site, and print the errors in it."""
    try:
        shutil.rmtree(BUILD, ignore_errors=True)
        collect_pages(ROOT, BUILD / "source")
        options = [
            "--fail-on-warning",
            "--keep-going",
            "--quiet",
            "--jobs",
            "auto",
            "--conf-dir",
            str(ROOT / OWN_PAGES),
        ]
        folders = [str(BUILD / "source"), str(BUILD / "html")]
        built = subprocess.run([sys.executable, "-m", "sphinx", *options, *folders], cwd=ROOT, check=False)
        problems = [f"sphinx failed with exit status {built.returncode}"] if built.returncode else []
        problems += html_problems(BUILD / "html")
    except SiteError as error:
        problems = [str(error)]
    print("\n".join(problems) or f"site: {(BUILD / 'html' / 'index.html').relative_to(ROOT)}")
    return int(bool(problems))


def collect_pages(root: Path, source: Path) -> None:
    """Write the source of the site: the pages of the repository with changed links, and the generated pages."""
    generated = dict(reference_pages())
    found = list(repository_pages(root))
    pages = {path: page_of(path) for path in [*found, *(OWN_PAGES / page for page in generated)]}
    (source / "extra").mkdir(parents=True)
    written = {pages[path]: rewrite_links(markdown_of(root / path), path, pages, root, source) for path in found}
    for page, text in (written | {Path(page): text for page, text in generated.items()}).items():
        (source / page).parent.mkdir(parents=True, exist_ok=True)
        (source / page).write_text(text, encoding="utf-8")


def repository_pages(root: Path) -> Iterator[Path]:
    """Yield the path of each page below the root of the repository."""
    for pattern in ("*.md", "docs/**/*.md", "cards/*.md", "examples/*.ipynb", "benchmarks/*.md", "plugins/*/*.md"):
        yield from sorted(path.relative_to(root) for path in root.glob(pattern))


def page_of(path: Path) -> Path:
    """Return the path of a page in the site.

    >>> page_of(Path("docs/training.md")).as_posix(), page_of(Path("cards/vgg16.md")).as_posix()
    ('howto/training.md', 'backbones/vgg16.md')
    """
    if place := PLACES.get(path.as_posix()):
        return Path(place)
    if path.is_relative_to(OWN_PAGES):
        return path.relative_to(OWN_PAGES)
    section = {"cards": "backbones", "examples": "tutorials", "docs": "howto"}.get(path.parts[0], ".")
    return Path(section, path.name).with_suffix(".md")


def markdown_of(path: Path) -> str:
    """Return the Markdown of a page; the cells of a notebook are shown but not executed."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    shown = [source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells]
    return "\n\n".join([*shown, f"[Download this notebook]({path.name})\n"])


def rewrite_links(text: str, path: Path, pages: dict[Path, Path], root: Path, source: Path) -> str:
    """Return the text of a page, with links to files of the repository changed to the paths in the site."""

    def rewritten(match: re.Match[str]) -> str:
        target, _, anchor = (match["target"] or match["file"]).partition("#")
        if not target or urlsplit(target).scheme:
            return match[0]
        found = Path(os.path.normpath(path.parent / unquote(target)))
        found = Path(FOLDERS.get(found.as_posix(), found))
        if found in pages and found != path:
            place = pages[found]
        elif (root / found).is_file():
            place = Path("extra", "files", found)
            (source / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / found, source / place)
        else:
            raise SiteError(f"{path}: link to {target}: expected a file or the folder of a page")
        if match["attribute"]:  # links in raw HTML are relative to the built site, which has these files at its root
            place = place.relative_to("extra") if place.parts[0] == "extra" else place.with_suffix(".html")
        link = Path(os.path.relpath(place, pages[path].parent)).as_posix() + (f"#{anchor}" if anchor else "")
        return f"{match['before'] or match['attribute']}{link}"

    parts = CODE.split(text)
    return "".join(part if part.startswith("`") else LINK.sub(rewritten, part) for part in parts)


def reference_pages() -> Iterator[tuple[str, str]]:
    """Yield the name and text of each reference page, which documents public names by their docstrings."""
    import zoo

    kinds: dict[str, list[str]] = {"functions": [], "results": [], "plugins": [], "errors": []}
    for name in sorted(set(zoo.__all__) - {"__version__"}, key=str.lower):
        kinds[kind_of(getattr(zoo, name))].append(name)
    titles = {
        "functions": "Functions",
        "results": "Results and metrics",
        "plugins": "Declarations of a plugin",
        "errors": "Errors",
    }
    for kind, names in kinds.items():
        directives = "\n".join(directive(name, getattr(zoo, name)) for name in names)
        yield f"reference/{kind}.md", f"# {titles[kind]}\n\n```{{eval-rst}}\n{directives}```\n"


def kind_of(value: Any) -> str:
    """Return the name of the reference page that documents a public value."""
    import zoo

    if not inspect.isclass(value):
        return "functions" if inspect.isroutine(value) or hasattr(value, "cache_info") else "plugins"
    if issubclass(value, zoo.ZooError):
        return "errors"
    return "plugins" if value.__module__.startswith("zoo.") else "results"


def directive(name: str, value: Any) -> str:
    """Return the Sphinx directive that documents a public name."""
    if inspect.isclass(value):
        kind, options = ("autoexception" if issubclass(value, Exception) else "autoclass"), "   :members:\n"
    else:
        kind, options = ("autofunction" if kind_of(value) == "functions" else "autodata"), ""
    return f".. {kind}:: zoo.{name}\n{options}"


class PageParser(HTMLParser):
    """Collects the anchors, the links and the loaded files of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the anchors and links of an HTML element."""
        attributes = {key: value or "" for key, value in attrs}
        self.anchors |= {attributes[key] for key in ("id", "name") if key in attributes}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        loads = {"link": "href", "script": "src", "img": "src", "source": "srcset", "iframe": "src"}
        if value := attributes.get(loads.get(tag, "")):
            self.loaded.append(value)


def html_problems(html: Path) -> list[str]:
    """Return the broken internal links of the built site, and the files that a page loads from another host."""
    pages = {path: parsed(path) for path in sorted(html.rglob("*.html")) if "_static" not in path.parts}
    problems = [problem for path in pages for problem in page_problems(path, pages, html)]
    for path in sorted(html.rglob("*.css")):
        remote = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", path.read_text(encoding="utf-8"))
        problems += [f"{path.relative_to(html)}: loads {url}" for url in remote]
    return problems


def parsed(path: Path) -> PageParser:
    """Return the parsed HTML page."""
    parser = PageParser()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def page_problems(path: Path, pages: dict[Path, PageParser], html: Path) -> Iterator[str]:
    """Yield the broken links of one page and the files that it loads from another host."""
    name = path.relative_to(html)
    for url in pages[path].loaded + pages[path].links:
        parts = urlsplit(url)
        if parts.scheme == "data":
            continue
        if parts.netloc:
            if url in pages[path].loaded:
                yield f"{name}: loads {url}"
            continue
        if parts.scheme:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            yield f"{name}: no file for the link {url}"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors | {"top"}:
            yield f"{name}: no anchor for the link {url}"


if __name__ == "__main__":
    sys.exit(main())
