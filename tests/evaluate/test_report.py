"""The report: one file, each section, and the numbers of summary.json."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from rerecord import rerecord

from pipeline import files, predict
from pipeline.errors import StoreError
from pipeline.evaluate import report
from pipeline.evaluate.report import style
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace

SECTIONS = [
    "maps",
    "scores",
    "spread",
    "strata",
    "triple",
    "density",
    "sites",
    "series",
    "uncertainty",
    "siting",
]

ALWAYS = ["training", "data", "provenance"]
METRICS = ("correlation", "rmse", "ubrmse", "bias", "anomaly_correlation")


class Page(HTMLParser):
    """Sections, links, pictures and table cells of a page."""

    def __init__(self, html):
        super().__init__()
        self.sections, self.loaded, self.links, self.alt = [], [], [], []
        self.cells, self.scripts, self.ids, self.titles = {}, 0, set(), []
        self._table = self._row = self._metric = self._tag = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found["id"]} if "id" in found else set()
        self._tag = tag
        if tag == "section":
            self.sections.append(found["id"])
        if tag == "table":
            self._table = found.get("data-judge") or found.get("data-paired", "") + " paired"
        if tag == "tr":
            self._row = found.get("data-name")
        if tag == "td":
            self._metric = found.get("data-metric")
        if tag == "a":
            self.links.append(found["href"])
        elif tag == "img":
            self.alt.append(found["alt"])
        self.scripts += tag == "script"
        self.loaded += [found[k] for k in ("src", "srcset") if k in found]
        self.loaded += [found["href"]] if tag == "link" else []

    def handle_data(self, data):
        if self._tag == "title":
            self.titles.append(data)
        if self._metric and data.strip():
            key = (self._table, self._row, self._metric)
            self.cells.setdefault(key, []).append(data.strip())

    def handle_endtag(self, tag):
        self._tag = None
        if tag == "td":
            self._metric = None


def copied(world, folder):
    """A copy of the small world's workspace, without its report, which may be changed."""
    without = shutil.ignore_patterns("report.*")
    root = shutil.copytree(world.workspace.root, folder / "snow", ignore=without)
    return Workspace(str(root))


def page_of(workspace):
    return Page(files.read_bytes(workspace.url("report.html")).decode())


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """A workspace with maps, and its report."""
    workspace = copied(world, tmp_path_factory.mktemp("report"))
    predict.run(world.experiment, workspace, SilentProgress())
    report.run(world.experiment, workspace, SilentProgress())
    return workspace, page_of(workspace)


def test_has_every_section_and_loads_nothing(made):
    workspace, page = made
    assert page.sections == SECTIONS + ALWAYS
    assert all(uri.startswith("data:image/") for uri in page.loaded)
    assert "Distances of held-out sites, and of cells, from sites" in page.alt
    assert all(link.startswith(("#", "https://doi.org/")) for link in page.links)
    assert page.scripts == 1  # it sorts the table of the sites
    assert all(page.alt)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    html = files.read_bytes(workspace.url("report.html")).decode()
    assert not re.search(r"url\(|@import", html)
    record = workspace.artefact("report").manifest()["shards"]
    assert [shard["key"] for shard in record] == ["report.html"]


def test_numbers_are_those_of_the_summary(made, world):
    _, page = made
    summary = world.summary
    described = summary["arms"] | summary["baselines"]
    digits = {m: style.metric_decimals(m, described.values()) for m in METRICS}
    for name, scores in described.items():
        for metric in METRICS:
            value, *bounds = page.cells["sites", name, metric]
            sign = "+" if metric == "bias" else ""
            assert value == style.format_number(scores["median"][metric], digits[metric], sign)
            plain = value.replace("\N{MINUS SIGN}", "-")
            expected = scores["median"][metric]
            assert float(plain) == pytest.approx(expected, abs=0.5001 * 10 ** -digits[metric])
            assert len(bounds) == (None not in scores["ci95"][metric])
    for pair, made_of in summary["paired"].items():
        value, *_ = page.cells["sites paired", pair, "rmse"]
        plain = float(value.replace("\N{MINUS SIGN}", "-"))
        assert plain == pytest.approx(made_of["rmse"]["median_difference"], abs=0.005)


def test_every_site_is_in_the_table_and_told_where_the_pointer_is(made, world):
    workspace, page = made
    html = files.read_bytes(workspace.url("report.html")).decode()
    table = html.partition('data-table="sites"')[2].partition("</table>")[0]
    heads = re.findall(r'aria-sort="none"><button type="button">([^<]*)</button>', table)
    assert heads == ["site", "network", "latitude", "longitude", "days", "effective days", "R",
                     "RMSE", "ubRMSE", "bias", "anomaly R"]  # fmt: skip
    rows = re.findall(r'<tr id="(site-\d+)"><td data-sort="([^"]*)">', table)
    scores = pd.read_parquet(workspace.url("scores.parquet"))
    sites = scores[(scores.target == "site") & (scores.arm == "multiscale")].id.unique()
    assert sorted(site for _, site in rows) == sorted(sites)
    for site in sites:  # on three maps and in the densities of the arms
        assert sum(title.startswith(f"{site}: R ") for title in page.titles) >= 3


def test_no_path_of_the_machine_is_in_the_page(made, world):
    workspace, _ = made
    html = files.read_bytes(workspace.url("report.html")).decode()
    text = re.sub(r"data:image/[^\"]*", "", html)
    folders = (workspace.root, world.workspace.root, str(world.folder), str(Path.home()))
    assert [folder for folder in folders if folder in text] == []


def test_a_report_of_earlier_scores_lacks_only_what_they_did_not_count(world, tmp_path):
    """Scores from before there were curves, files of sites and spreads."""
    workspace = copied(world, tmp_path)
    shutil.rmtree(workspace.url("maps"), ignore_errors=True)
    summary = json.loads(files.read_bytes(workspace.url("summary.json")))
    del summary["training_spread"]
    for described in summary["arms"].values():
        del described["reliability"]
    files.write_json(workspace.url("summary.json"), summary)
    artefact = workspace.artefact("scores")
    manifest = artefact.manifest()
    old = {"scores.parquet", "summary.json"}
    manifest["shards"] = [record for record in manifest["shards"] if record["key"] in old]
    artefact._write_manifest(manifest)
    rerecord(workspace, "scores")
    report.run(world.experiment, workspace, SilentProgress())
    page = page_of(workspace)
    assert page.sections == SECTIONS[1:-1] + ALWAYS
    assert not [alt for alt in page.alt if alt.startswith("Reliability")]
    assert "site_scores.csv" not in files.read_bytes(workspace.url("report.html")).decode()


def test_a_second_run_touches_nothing(made, world):
    workspace, _ = made
    written = [Path(workspace.url(name)) for name in ("report.html", "report.manifest.json")]
    before = [path.stat().st_mtime_ns for path in written]
    report.run(world.experiment, workspace, SilentProgress())
    assert [path.stat().st_mtime_ns for path in written] == before


def test_without_maps(world, tmp_path):
    workspace = copied(world, tmp_path)
    shutil.rmtree(workspace.url("maps"), ignore_errors=True)
    report.run(world.experiment, workspace, SilentProgress())
    assert page_of(workspace).sections == SECTIONS[1:-1] + ALWAYS
    assert workspace.artefact("report").manifest()["inputs"]["maps"] == "none"


def test_without_sites_has_footprints_alone(world, tmp_path):
    workspace = copied(world, tmp_path)
    shutil.rmtree(workspace.url("maps"), ignore_errors=True)
    summary = json.loads(files.read_bytes(workspace.url("summary.json")))
    scores = {"correlation": 0.9, "rmse": 0.0412, "ubrmse": None, "bias": -0.02}
    summary |= {"arms": {}, "baselines": {}, "paired": {}, "n_sites": 0}
    summary["footprints"] = {"all": {"ensemble": {"n_footprints": 11, "median": scores}}}
    files.write_json(workspace.url("summary.json"), summary)
    table = pd.read_parquet(workspace.url("scores.parquet"))
    table.assign(target="footprint").to_parquet(workspace.url("scores.parquet"))
    rerecord(workspace, "scores")
    report.run(world.experiment, workspace, SilentProgress())
    assert page_of(workspace).sections == ["footprints", *ALWAYS]
    html = files.read_bytes(workspace.url("report.html")).decode()
    assert "At 11 footprints" in html
    assert f">{style.ABSENT}</td>" in html


def test_with_truth(made, world, tmp_path):
    """The truth's panel stands beside the sites' (its scores borrowed from the sites)."""
    workspace = copied(world, tmp_path)
    shutil.rmtree(workspace.url("maps"), ignore_errors=True)
    summary = json.loads(files.read_bytes(workspace.url("summary.json")))
    keys = ("arms", "baselines", "paired")
    summary["truth"] = {key: summary[key] for key in keys} | {"n_cells": 1234}
    files.write_json(workspace.url("summary.json"), summary)
    rerecord(workspace, "scores")
    report.run(world.experiment, workspace, SilentProgress())
    page = page_of(workspace)
    assert page.cells["truth", "insitu", "rmse"] == page.cells["sites", "insitu", "rmse"]
    html = files.read_bytes(workspace.url("report.html")).decode()
    assert "At 1,234 cells away from every site" in html


def test_what_an_experiment_says_is_escaped(world, tmp_path):
    workspace = copied(world, tmp_path)
    shutil.rmtree(workspace.url("maps"), ignore_errors=True)
    odd = world.experiment.model_copy(update={"title": "<script>snow & ice</script>"})
    report.run(odd, workspace, SilentProgress())
    assert page_of(workspace).scripts == 1  # that of the page
    assert "<script>snow" not in files.read_bytes(workspace.url("report.html")).decode()


def test_needs_scores(world, tmp_path):
    with pytest.raises(StoreError, match="no complete"):
        report.run(world.experiment, Workspace(str(tmp_path / "empty")), SilentProgress())


@pytest.mark.parametrize(
    ("value", "digits", "sign", "told"),
    [
        (0.8331, 3, "", ".833"),
        (-0.0028, 4, "+", "\N{MINUS SIGN}.0028"),
        (0.014, 3, "+", "+.014"),
        (12.34, 1, "", "12.3"),
        (10.25, 2, "", "10.25"),
        (None, 3, "", "\N{EN DASH}"),
    ],
)
def test_numbers(value, digits, sign, told):
    assert style.format_number(value, digits, sign) == told
