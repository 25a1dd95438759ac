"""Build the site: run the snippets, then Sphinx, then look at what it has made. `make docs`."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from servers import seaweed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = ("docs/tutorials", "docs/how-to")
RUNS_IN = "build/docs-workspace"
SITE = "build/docs"


class _Loaded(HTMLParser):
    """Collects what a page loads from other hosts: scripts, styles, fonts, pictures, frames."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at the start of an element."""
        for key, value in attrs:
            loads = key in ("src", "srcset", "data") or (tag == "link" and key == "href")
            if loads and re.match(r"\s*(https?:)?//", value or ""):
                self.found.append(f"<{tag} {key}={value}>")


def loaded_from_elsewhere(site: Path) -> list[str]:
    """Return what the pages and styles of a site load from other hosts."""
    problems = []
    for page in sorted(site.rglob("*.html")):
        loaded = _Loaded()
        loaded.feed(page.read_text())
        problems += [f"{page.relative_to(site)}: {each}" for each in loaded.found]
    for style in sorted(site.rglob("*.css")):
        urls = re.findall(r"url\(\s*['\"]?((?:https?:)?//[^)]*)\)|@import[^;]*", style.read_text())
        problems += [f"{style.relative_to(site)}: {each}" for each in urls]
    return problems


def copy_workspace(workspace: Path, folder: Path) -> None:
    """Make the folder that snippets run in: the demo's experiments, and what a clone has."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("demo", "demo-few"):
        shutil.copytree(workspace / name, folder / "workspace" / name)
    for name in (".venv", "catalogs", "infra", "pipeline", "tests"):
        (folder / name).symlink_to(ROOT / name)


def python_environment() -> dict[str, str]:
    """Return the environment of processes that import this code and that of the site."""
    path = [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def run_snippets(folder: Path, pages: list[str]) -> int:
    """Run the snippets of pages; returns the exit status of pytest.

    Buckets are those of an S3 server on this machine.
    """
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, f"--rootdir={ROOT}", "-q"]
    command += [
        "-p",
        "snippets",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:warnings",
        "--tb=short",
        "--show-capture=no",
    ]
    with seaweed(folder, bucket="bucket") as store:
        environment = python_environment() | store.environment
        environment |= {"SNIPPETS_FOLDER": str(folder), "MPLBACKEND": "Agg"}
        paths = [str(ROOT / page) for page in pages]
        return subprocess.run([*command, *paths], env=environment, check=False).returncode


def run_sphinx(builder: str, folder: Path) -> int:
    """Build the site, with warnings as errors; returns the exit status of Sphinx."""
    command = [sys.executable, "-m", "sphinx", "-b", builder, "-c", str(HERE), "-W", "--keep-going"]
    command += ["-q", "-E", "-D", f"workspace_folder={folder}", str(ROOT)]
    output = ROOT / SITE if builder == "html" else ROOT / "build" / builder
    environment = python_environment() | {"PYTHONWARNINGS": "ignore::FutureWarning"}  # torch's own
    return subprocess.run([*command, str(output)], env=environment, check=False).returncode


def main() -> int:
    """Build and check the site."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--workspace", default="workspace", help="where the demo was run")
    parser.add_argument("--external", action="store_true", help="check links to other hosts too")
    parser.add_argument("--only", nargs="+", default=[], help="run the snippets of these pages")
    parser.add_argument("--no-snippets", action="store_true", help="build the pages alone")
    options = parser.parse_args()
    folder = ROOT / RUNS_IN
    copy_workspace(Path(options.workspace), folder)
    failed = 0 if options.no_snippets else run_snippets(folder, options.only or [*PAGES])
    if options.only:
        return failed
    shutil.rmtree(ROOT / SITE, ignore_errors=True)
    failed |= run_sphinx("html", folder)
    for problem in loaded_from_elsewhere(ROOT / SITE):
        print(f"loads from another host: {problem}", file=sys.stderr)
        failed = 1
    if options.external:
        failed |= run_sphinx("linkcheck", folder)
    print(f"{'Failed. ' if failed else ''}Site: {SITE}/index.html")
    return failed


if __name__ == "__main__":
    sys.exit(main())
