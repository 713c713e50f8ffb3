"""Settings of Sphinx for the documentation site; scripts/site.py collects the pages and runs it."""

from zoo import __version__

project = "blockzoo"
version = release = __version__
project_copyright = "the blockzoo authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["extra"]
html_extra_path = ["../../build/site/source/extra"]  # files that pages load by raw HTML

myst_heading_anchors = 4  # the anchors that GitHub makes
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
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
