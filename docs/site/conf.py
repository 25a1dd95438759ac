"""How Sphinx builds the site. `make docs` calls it; CONTRIBUTING.md says how to write pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import notebooks
import reference
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

import pipeline

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

project = "soilweave"
author = "the authors of soilweave"
project_copyright = "the authors of soilweave, Apache-2.0"
version = release = pipeline.__version__

# The source folder is the repository, so that one relative link works on GitHub and on the site.
extensions = [
    "myst_nb",
    "sphinx_external_toc",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
include_patterns = [
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
    *("catalogs/README.md", "infra/README.md", "docs/**"),
    "pipeline/experiment/presets/models/*/card.md",
]
exclude_patterns = [
    *(".*", "build", "mlruns", "workspace", "model", "tests", "docs/site"),
    *("infra/viewer", "**/node_modules"),
]
external_toc_path = "docs/site/toc.yml"
highlight_language = "text"
smartquotes = False  # they would turn the hyphens of options into dashes
default_role = "code"  # of docstrings

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # `notebooks` runs them where the snippets are run
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # nothing from other hosts

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"soilweave {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
templates_path: list[str] = []
copybutton_prompt_text = "$ "

linkcheck_timeout = 30
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|HEAD|example\.org)"]


def _fill_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Put generated text in the place of `<!-- site: NAME -->`, and outputs into notebooks."""
    if app.env.doc2path(name).suffix == ".ipynb":
        source[0] = notebooks.run(source[0], Path(app.config.workspace_folder))
    else:
        marker = re.compile(r"^<!-- site: ([\w-]+) -->$", re.M)
        source[0] = marker.sub(lambda found: reference.PAGES[found[1]](), source[0])


def _draw_math(self: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers draw without a script or a font."""
    is_block = isinstance(node, nodes.math_block)
    try:
        drawn = tex2mathml(node.astext(), as_block=is_block)
    except MathError as error:
        logger.warning("%s in: %s", error, node.astext(), location=node)
    else:
        self.body.append(f'<div class="formula">{drawn}</div>' if is_block else drawn)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register what the site does beyond its extensions."""
    app.add_config_value("workspace_folder", "", "")
    app.add_html_math_renderer("mathml", (_draw_math, None), (_draw_math, None))
    app.connect("source-read", _fill_page)
