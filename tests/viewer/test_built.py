"""The built files of the viewer: those of its sources, small, and with nothing of others."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from pipeline.viewer import built

SOURCES = Path(__file__).resolve().parents[2] / "infra" / "viewer"
MADE = ("node_modules", "outlines.json")  # of other things than the sources
MAX_BYTES, MAX_FIRST_LOAD = 1_000_000, 300_000
MAX_LINES = 500


def sources() -> list[Path]:
    paths = (p.relative_to(SOURCES) for p in SOURCES.rglob("*") if p.is_file())
    return sorted((p for p in paths if not {*MADE} & {*p.parts}), key=lambda p: p.as_posix())


def digest() -> str:
    """The digest that vite.config.ts writes into build.json."""
    lines = (
        f"{path.as_posix()} {hashlib.sha256((SOURCES / path).read_bytes()).hexdigest()}\n"
        for path in sources()
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_committed_files_are_built_from_the_sources():
    recorded = json.loads(built.built_files()["viewer/build.json"])
    assert recorded["sources_sha256"] == digest(), "run `make viewer`, and commit what it builds"


def test_the_files_are_small():
    files = built.built_files()
    assert sum(map(len, files.values())) < MAX_BYTES
    assert sum(len(gzip.compress(data)) for data in files.values()) < MAX_FIRST_LOAD
    assert [*files][-1] == "index.html"


def test_the_page_asks_for_its_own_files_and_for_nothing_elsewhere():
    page = built.built_files()["index.html"].decode()
    assert "default-src 'self'" in page
    named = set(re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page))
    assert {name.removeprefix("./") for name in named} <= {*built.built_files()}
    assert re.findall(r"https?://[^\"' )]+", page) == []


def test_the_licences_of_what_is_bundled_are_there():
    told = built.built_files()["viewer/licences.txt"].decode()
    for name in ("ol ", "zarrita ", "proj4 ", "uplot ", "fzstd ", "us-atlas ", "world-atlas "):
        assert f"\n{name}" in f"\n{told}"


def test_sources_stay_small_and_the_lock_names_no_host():
    code = [p for p in sources() if p.suffix in (".ts", ".mjs", ".css", ".html")]
    assert len(code) > 15
    assert [p for p in code if len((SOURCES / p).read_text().splitlines()) > MAX_LINES] == []
    assert '"resolved"' not in (SOURCES / "package-lock.json").read_text()


@pytest.mark.viewer
def test_building_anew_gives_the_committed_files(tmp_path):
    for command in (["node", "scripts/outlines.mjs"], ["npx", "vite", "build"]):
        options = [f"--outDir={tmp_path}"] if "build" in command else []
        subprocess.run([*command, *options], cwd=SOURCES, check=True, stdout=subprocess.DEVNULL)
    made = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*.*")}
    assert made == dict(built.built_files())
