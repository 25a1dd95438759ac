"""The documentation: its links lead somewhere, and its commands are those of the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("model", "pipeline", "tests", "catalogs", "infra", "docs")
MODULE_FOLDERS = ["", "pipeline", *(f"pipeline/{f.name}" for f in (ROOT / "pipeline").iterdir())]
MADE_BY_USERS = "infra/.env"
PAGES = sorted(ROOT.glob("*.md"))


PAGES += sorted(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))


PAGES = [page for page in PAGES if "node_modules" not in page.parts]


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_blocks(text: str) -> str:
    """The text of a page without its code blocks, in which `#` starts a comment."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_anchors_are_those_that_github_makes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b.yaml`: 412 cells\n\n```bash\n# comment\n```\n\n## 2. In-situ (one)\n")
    assert anchors(page) == {"a-byaml-412-cells", "2-in-situ-one"}


@each_page
def test_links_lead_to_a_file_and_a_heading_that_exist(page):
    text = re.sub(r"`[^`]*`", "", without_blocks(page.read_text()))
    links = re.findall(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)", text)
    wrong = []
    for path, anchor in links:
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f"{path}#{anchor}" if anchor else path)
    assert wrong == []


@each_page
def test_files_that_a_page_names_exist(page):
    """Paths from the root of the repository, and modules as `storage/lease.py` in code spans."""
    text = page.read_text()
    paths = set(re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)", text)) - {
        MADE_BY_USERS
    }
    modules = set(re.findall(r"`([\w/]+\.py)`", text))
    wrong = {path for path in paths if not (ROOT / path).exists()}
    wrong |= {m for m in modules if not any((ROOT / f / m).exists() for f in MODULE_FOLDERS)}
    assert sorted(wrong) == []


def commands() -> list[list[str]]:
    """The words of every `soilweave` command in the shell blocks of all pages."""
    words = []
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S):
            lines = block.replace("\\\n", " ").splitlines()
            words += [shlex.split(line, comments=True) for line in lines if "soilweave " in line]
    return [found for found in words if found and found[0] in ("soilweave", ".venv/bin/soilweave")]


def test_commands_are_what_the_command_line_takes():
    from typer.main import get_command

    from pipeline.cli import app

    verbs = get_command(app).commands
    assert len(commands()) >= 20
    for _, verb, *arguments in commands():
        verbs[verb].make_context(verb, list(arguments))


def test_the_readme_lists_every_verb():
    from typer.main import get_command

    from pipeline.cli import app

    rows = re.findall(r"^\| `soilweave (\w+)", (ROOT / "README.md").read_text(), re.M)
    assert sorted(rows) == sorted(get_command(app).commands)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_indices_list_every_page_beside_them():
    for index in (ROOT / "docs" / "README.md", ROOT / "docs" / "decisions" / "README.md"):
        pages = {p.relative_to(index.parent).as_posix() for p in index.parent.rglob("*.md")}
        if index.parent.name == "docs":
            pages = {
                p for p in pages if p == "decisions/README.md" or not p.startswith("decisions/")
            }
        links = set(re.findall(r"\]\(([^)#]+\.md)", index.read_text()))
        assert pages - {"README.md"} - links == set(), index


def test_glossary_is_in_alphabetical_order():
    words = re.findall(r"^- \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    assert len(words) > 40
    assert words == sorted(words, key=str.lower)
