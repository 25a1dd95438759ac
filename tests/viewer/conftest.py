"""The demo shown by `soilweave view` and from a bucket, and Chromium to look at it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import publish, viewer
from pipeline.experiment.product import ProductConfig
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace

OPTIONS = ("--no-sandbox", "--disable-dev-shm-usage")
SIZES = {1280: (1280, 800), 360: (360, 740)}
SHOTS = os.environ.get("SOILWEAVE_SCREENSHOTS")  # a folder for the screenshots of the docs
MADE = {"license": "CC-BY-4.0", "creator": "Example Group", "doi": "10.5281/zenodo.1"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The folder of the demo, all of whose stages have run; SOILWEAVE_DEMO may name one."""
    if given := os.environ.get("SOILWEAVE_DEMO"):
        return Path(given)
    workspace = tmp_path_factory.mktemp("workspace")
    command = [sys.executable, "-m", "pipeline", "run", "demo", "--workspace", str(workspace)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return workspace / "demo"


@contextlib.contextmanager
def view(target: str, *options: str):
    """`soilweave view` until the block ends; gives the address that it prints."""
    command = [sys.executable, "-m", "pipeline", "view", target, "--no-browser", *options]
    wide = os.environ | {"COLUMNS": "400"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=wide) as process:
        try:
            line = process.stdout.readline()
            assert " is shown at " in line, line
            yield line.split(" is shown at ")[1].split()[0]
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="session")
def viewed(folder):
    """The address of the demo in its workspace."""
    with view(str(folder)) as url:
        yield url


@pytest.fixture(scope="session")
def bucket(folder, s3):
    """URL of a publication in a bucket that anybody may read and nobody may list."""
    url = s3.url("demo")
    store = Workspace(str(folder))
    publish.publish(store, url, SilentProgress(), product=ProductConfig(**MADE))
    viewer.put_beside(url)
    anybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    statement = anybody | {"Resource": f"arn:aws:s3:::{s3.bucket}/*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    with contextlib.closing(s3.client()) as client:
        client.put_bucket_policy(Bucket=s3.bucket, Policy=json.dumps(policy))
    return url


@pytest.fixture(scope="session")
def place(request, folder):
    """The address of a page: of a workspace, in a bucket, or of the bucket through `view`."""
    if request.param == "workspace":
        yield request.getfixturevalue("viewed")
        return
    url, s3 = request.getfixturevalue("bucket"), request.getfixturevalue("s3")
    if request.param == "bucket":
        yield f"{s3.endpoint}/{s3.bucket}/demo/index.html"
        return
    with view(url) as address:
        yield address


@pytest.fixture(scope="session")
def chromium():
    """The browser of the system."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium: apt install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=[*OPTIONS])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """A function that opens an address at a width, and checks what the page has asked for."""
    pages = []

    def open_page(url, width=1280, ready=True):
        across, down = SIZES[width]
        context = chromium.new_context(
            viewport={"width": across, "height": down},
            has_touch=width < 800,
            permissions=["clipboard-read", "clipboard-write"],
        )
        page = context.new_page()
        page.asked, page.wrong = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.goto(url)
        if ready:
            page.wait_for_selector("#map[data-day]")
        pages.append((page, url))
        return page

    yield open_page
    for page, url in pages:
        origin = "/".join(url.split("/")[:3])
        page.context.close()
        own = (f"{origin}/", "data:", "blob:")
        assert [each for each in page.asked if not each.startswith(own)] == []
        assert page.wrong == []


@pytest.fixture
def shots(tmp_path) -> Path:
    """Where screenshots are put."""
    return Path(SHOTS) if SHOTS else tmp_path
