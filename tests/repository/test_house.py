"""The rules of the house that a reader relies on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "model").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")])


def public(tree: ast.Module) -> list[ast.AST]:
    """Public functions and classes of a module, and public methods of public classes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found, todo = [], [node for node in tree.body if isinstance(node, kinds)]
    while todo:
        node = todo.pop()
        if node.name.startswith("_"):
            continue
        found.append(node)
        if isinstance(node, ast.ClassDef):
            todo += [inner for inner in node.body if isinstance(inner, kinds)]
    return found


def test_every_module_and_public_name_has_a_docstring():
    lacking = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        name = str(path.relative_to(ROOT))
        lacking += [] if ast.get_docstring(tree) else [name]
        lacking += [f"{name}: {node.name}" for node in public(tree) if not ast.get_docstring(node)]
    assert lacking == []


def test_files_and_functions_stay_small():
    lengths = {str(p): len(p.read_text().splitlines()) for p in SOURCES}
    assert {name: n for name, n in lengths.items() if n > 500} == {}
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n = node.end_lineno - node.lineno + 1
                if n > 50:
                    long[f"{path.name}:{node.name}"] = n
    assert long == {}


def test_the_target_is_named_in_no_code():
    told = [
        p.name for p in SOURCES if p.name != "variables.py" and "soil_moisture" in p.read_text()
    ]
    assert told == []


def test_only_the_command_line_prints():
    for path in SOURCES:
        if path.name != "cli.py":
            assert not re.search(r"^\s*print\(", path.read_text(), re.M), path
