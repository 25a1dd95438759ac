"""The documentation site: its pages and its checks. Building it belongs to `make docs`."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TAUGHT = sorted([*(DOCS / "tutorials").glob("*.md"), *(DOCS / "how-to").glob("*.md")])
HEADING = "What can go wrong"


@pytest.fixture
def site(monkeypatch):
    """Imports a module of docs/site."""
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    names = ("build", "reference")
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", TAUGHT, ids=lambda page: page.stem)
def test_what_is_taught_ends_with_what_can_go_wrong(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    assert re.findall(r"^## (.+)$", text, re.M)[-1:] == [HEADING]


@pytest.mark.parametrize("page", TAUGHT, ids=lambda page: page.stem)
def test_blocks_that_are_not_run_say_why(page):
    markers = re.findall(r"<!--.*?-->", page.read_text(), re.S)
    assert [m for m in markers if not re.fullmatch(r'<!-- skip: next "[^"]{10,}" -->', m)] == []


def entries(tree) -> list[str]:
    """All `file` and `glob` of a table of contents."""
    if isinstance(tree, list):
        return [each for item in tree for each in entries(item)]
    found = [tree[key] for key in ("root", "file", "glob") if key in tree]
    return found + [e for key in ("subtrees", "entries") for e in entries(tree.get(key, []))]


def test_the_site_has_every_page():
    listed = entries(yaml.safe_load((DOCS / "site" / "toc.yml").read_text()))
    found = {path.with_suffix("") for entry in listed for path in ROOT.glob(f"{entry}.*")}
    pages = {p.with_suffix("") for kind in ("*.md", "*.ipynb") for p in DOCS.rglob(kind)}
    pages |= {p.with_suffix("") for p in ROOT.glob("*.md")}
    assert sorted(str(page.relative_to(ROOT)) for page in pages - found) == []


def test_notebooks_are_committed_without_outputs():
    for path in DOCS.rglob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        assert HEADING in "".join(cells[-1]["source"])
        assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_reference_is_made_from_the_code(site):
    from typer.main import get_command

    from pipeline import api
    from pipeline.cli import app

    pages = {name: make() for name, make in site("reference").PAGES.items()}
    used = re.findall(
        r"<!-- site: ([\w-]+) -->", "".join(p.read_text() for p in DOCS.rglob("*.md"))
    )
    assert sorted(used) == sorted(pages)
    for verb in get_command(app).commands:
        assert f"## `soilweave {verb}`" in pages["command-line"]
    assert "**`folds.block_km`** (number above 0" in pages["settings"]
    assert "`era5_arco`" in pages["catalog-entries"]
    assert all(f"autofunction:: {name}\n" in pages["python-api"] for name in api.__all__)


def test_what_a_site_loads_from_other_hosts_is_found(site, tmp_path):
    (tmp_path / "page.html").write_text(
        '<link rel="stylesheet" href="https://a.example/a.css"><script src="//b.example/x.js">'
        '</script><a href="https://example.org">link</a><img src="../here.png">'
    )
    (tmp_path / "a.css").write_text(
        "@import 'https://a.example/b.css'; p { background: url(http://b.example/c.png) }"
        "b { background: url(data:image/png;base64,AA) }"
    )
    found = site("build").loaded_from_elsewhere(tmp_path)
    assert [each.partition(":")[0] for each in found] == ["page.html"] * 2 + ["a.css"] * 2
