"""Count the modules that a reader of each stage meets: those reached by imports from its `run`.

Imports are followed from the module that defines `run`, but not into the libraries of the project
(`sources`, `storage`, `grid` and `model`), whose functions are read by their names. Imports for
type checking alone are not followed, and `__init__` files without code are not counted.

    python tests/repository/modules_per_stage.py [--root CHECKOUT] [--skip PREFIX ...] [MODULE ...]
"""

import argparse
import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("model", "pipeline.grid", "pipeline.sources", "pipeline.storage")
STAGES = ("prepare", "train", "predict", "evaluate")


def find_modules(root):
    """Return the path of every module of the project by its dotted name."""
    modules = {}
    for top in ("model", "pipeline"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported(path, modules):
    """Return the project's modules that a file imports, at its top or inside of functions."""
    names = set()
    waiting = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return names & set(modules)


def reached(start, modules, skip):
    """Return the modules met from a start, without entering those that begin with a prefix."""
    met, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in met or any(name == part or name.startswith(f"{part}.") for part in skip):
            continue
        met.add(name)
        waiting += imported(modules[name], modules)
    return {name for name in met if has_code(modules[name])}


def has_code(path):
    """Return whether a file has more than a docstring and imports."""
    body = ast.parse(path.read_text()).body
    plain = (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign)
    return path.name != "__init__.py" or not all(isinstance(node, plain) for node in body)


def main():
    """Print a line for each stage: its number of modules, and their names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="a checkout")
    parser.add_argument("--skip", nargs="*", default=LIBRARIES, help="prefixes not entered")
    parser.add_argument("modules", nargs="*", help="modules to start from; by default the stages")
    arguments = parser.parse_args()
    modules = find_modules(arguments.root)
    for start in arguments.modules or [f"pipeline.{stage}.stage" for stage in STAGES]:
        met = reached(start, modules, arguments.skip)
        print(f"{start}: {len(met)}: {' '.join(sorted(met))}")


if __name__ == "__main__":
    main()
