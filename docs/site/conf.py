"""Settings of Sphinx for the documentation site; scripts/site.py collects the pages and runs it."""

import ast
import re
from typing import Any

from zoo import __version__

project = "blockzoo"
version = release = __version__
project_copyright = "the blockzoo authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["extra"]
html_extra_path = ["../../build/site/source/extra"]  # files that pages load by raw HTML

myst_heading_anchors = 4  # the anchors that GitHub makes

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
add_module_names = False

html_theme = "furo"  # system fonts, no file from another host
html_title = f"blockzoo {__version__}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True


class _PlainTypes(ast.NodeTransformer):
    """Replaces ``Annotated[T, ...]`` by ``T``: constraints make a signature unreadable."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if ast.unparse(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
            return self.visit(node.slice.elts[0])
        return self.generic_visit(node)


def _plain_signature(*event: Any) -> tuple[str, str | None] | None:
    """Return the signature without ``Annotated``; ``None`` leaves it as it is."""
    signature, returned = event[-2:]
    if not signature or "Annotated[" not in signature:
        return None
    tree = ast.parse(f"def f{re.sub(r'<[^<>]*>', '...', signature)}: pass")
    (function,) = _PlainTypes().visit(tree).body
    return f"({ast.unparse(function.args)})", returned


def setup(app: Any) -> None:
    """Register the event handler, as Sphinx asks for."""
    app.connect("autodoc-process-signature", _plain_signature)
