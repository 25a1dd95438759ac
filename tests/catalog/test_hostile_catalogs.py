"""Catalogs from anywhere: they are data, run nothing, read no secret and import nothing."""

import sys

import intake
import pytest
import web
import yaml

from pipeline import doctor
from pipeline.catalog import entries, intake_catalog, templates
from pipeline.errors import ConfigError, SoilweaveError
from pipeline.progress import SilentProgress
from pipeline.sources import drivers
from pipeline.sources.shared import access

MARKER = "{{ cycler.__init__.__globals__.os.mkdir('MARKER') }}"
MAPPING = {"soil_moisture": {"from": "SM", "units": "m3 m-3"}}
METADATA = dict.fromkeys(intake_catalog.REQUIRED_METADATA, "of the test")


def entry(**changes):
    args = {"urlpath": "sites.nc", "place": "site", "mapping": MAPPING} | changes.pop("args", {})
    return {"driver": "points.PointsSource", "args": args, "metadata": METADATA} | changes


def in_args(**args):
    return entry(args=args)


def parameter(default):
    return entry(args={"urlpath": "{{p}}/a.nc"}, parameters={"p": {"default": default}})


BOMB = "{1}: &{1} [*{0},*{0},*{0},*{0},*{0},*{0},*{0},*{0},*{0},*{0}]\n"

# What is attacked -> the entry, and what the message says.
ATTACKS = {
    "code in urlpath": (in_args(urlpath=MARKER), "accepted: {{NAME}}"),
    "code in a statement": (in_args(urlpath="{% for x in [] %}{% endfor %}"), "accepted: {{NAME}}"),
    "an endless loop": (
        in_args(urlpath="{% for i in range(10**9) %}x{% endfor %}"),
        "accepted: {{NAME}}",
    ),
    "an expression": (in_args(urlpath="{{ 'a' * 10**10 }}"), "accepted: {{NAME}}"),
    "code in storage_options": (
        in_args(storage_options={"headers": {"x": MARKER}}),
        "args.storage_options.headers.x",
    ),
    "code in login": (in_args(login=MARKER), "args.login"),
    "code in the mapping": (
        in_args(mapping={"soil_moisture": {"from": MARKER, "units": "1"}}),
        "args.mapping.soil_moisture.from",
    ),
    "a shell": (in_args(urlpath="{{shell(touch MARKER)}}"), "accepted: {{NAME}}"),
    "a client's shell": (in_args(urlpath="{{client_shell(touch MARKER)}}"), "accepted: {{NAME}}"),
    "a client's environment": (in_args(urlpath="{{client_env(HOME)}}"), "accepted: {{NAME}}"),
    "a secret": (
        entry(
            args={"urlpath": "http://127.0.0.1:1/{{env(AWS_SECRET_ACCESS_KEY)}}"},
            environment=["AWS_SECRET_ACCESS_KEY"],
        ),
        "AWS_SECRET_ACCESS_KEY looks like the name of a secret",
    ),
    "an undeclared variable": (
        in_args(urlpath="{{env(HOME)}}/a.nc"),
        "HOME is not declared; add `environment: [HOME]`",
    ),
    "a variable elsewhere": (
        entry(args={"storage_options": {"x": "{{env(HOME)}}"}}, environment=["HOME"]),
        "available in `urlpath` only",
    ),
    "a URL with a password in another": (
        entry(args={"urlpath": "http://127.0.0.1:1/?{{env(PLACE)}}"}, environment=["PLACE"]),
        "only at the beginning",
    ),
    "an unknown parameter": (in_args(urlpath="{{planet}}/a.nc"), "does not declare"),
    "a default from the environment": (parameter("{{env(AWS_SECRET_ACCESS_KEY)}}"), "as a default"),
    "a default of Intake's environment": (parameter("env(AWS_SECRET_ACCESS_KEY)"), "as a default"),
    "a default of a shell": (parameter("shell(touch MARKER)"), "as a default"),
    "a default of a client's shell": (parameter(" client_shell(touch MARKER)"), "as a default"),
    "a default that is no text": (parameter(["a"]), "must be a text or a number"),
    "a module": (entry(driver="hostile_module.Source"), "there is no driver"),
    "a class of the library": (entry(driver="subprocess.Popen"), "there is no driver"),
    "a driver that reads no data": (entry(driver="numpy"), "there is no driver|does not read data"),
    "several drivers": (entry(driver=["hostile_module.Source"]), "name of one driver"),
    "a driver with a class": (
        entry(driver={"a": {"class": "hostile_module.Source"}}),
        "one driver",
    ),
    "references": (in_args(urlpath="reference::http://127.0.0.1:1/a.json"), "protocol 'reference'"),
    "a cache in a folder": (in_args(urlpath="simplecache::http://127.0.0.1:1/a"), "'simplecache'"),
    "another file system by option": (
        in_args(storage_options={"protocol": "reference"}),
        "'protocol' is not accepted",
    ),
    "a long text": (
        entry(args={"urlpath": "{{p}}" * 3000}, parameters={"p": {"default": "x" * 3000}}),
        "longer than 8,192 characters",
    ),
    "no entry": ("a text", "expected keys and values"),
    "arguments that are a list": (entry() | {"args": ["a"]}, "`args` must have keys"),
}


@pytest.fixture
def traps(tmp_path, monkeypatch):
    """A folder to work in, with a module that leaves a mark when it is imported, and a secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = "from pathlib import Path\n\nPath('MARKER').touch()\n"
    (tmp_path / "hostile_module.py").write_text(module)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "keep-me-secret")
    monkeypatch.setenv("PLACE", "https://user:password@127.0.0.1")
    yield tmp_path
    assert not (tmp_path / "MARKER").exists()
    assert "hostile_module" not in sys.modules


def write(folder, spec, name="catalog.yaml", **more):
    catalog = {"metadata": {"version": 1}, "sources": {"a": spec, "b": entry()}, **more}
    (folder / name).write_text(yaml.safe_dump(catalog))
    return str(folder / name)


def refusals(url):
    """What is said of entry `a` by those who open it."""
    with pytest.raises(ConfigError) as opened:
        entries.make_driver(intake_catalog.find_entry(url, "a"), {})
    rows = [" ".join(row) for row in examined(url) if row[0] == "a"]
    return str(opened.value), " ".join(rows)


def examined(url):
    """The rows of `doctor`."""
    _, (table, *_) = doctor.examine(url, [], SilentProgress())
    columns = ([str(cell) for cell in column._cells] for column in table.columns)
    return [*zip(*columns, strict=True)]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_in_one_line_by_prepare_and_by_doctor(traps, attack):
    spec, says = ATTACKS[attack]
    url = write(traps, spec, plugins={"source": [{"module": "hostile_module"}]})
    told, shown = refusals(url)
    for text in (told, shown):
        assert any(part in text for part in says.split("|")), text
    assert "\n" not in told
    assert "keep-me-secret" not in told + shown
    assert "password" not in told + shown


@pytest.mark.parametrize("attack", ["code in urlpath", "a secret", "a module", "references"])
def test_an_attack_by_http_is_refused_and_nothing_is_sent(traps, attack):
    write(traps, ATTACKS[attack][0])
    with web.serve(traps) as site:
        refusals(f"{site.url}/catalog.yaml")
    assert set(site.paths()) == {"/catalog.yaml"}


def test_intake_alone_would_run_it(traps):
    """The attack is real: it is what Intake itself does with the same entry."""
    spec = in_args(urlpath=MARKER.replace("MARKER", "RUN"))
    url = write(traps, spec | {"driver": "pipeline.sources.points.PointsSource"})
    intake.open_catalog(url)["a"]
    assert (traps / "RUN").exists()


def test_a_catalog_by_http_reads_no_environment_even_declared(traps, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/somewhere")
    spec = entry(args={"urlpath": "{{env(SOME_FOLDER)}}/a.nc"}, environment=["SOME_FOLDER"])
    local = entries.make_driver(intake_catalog.find_entry(write(traps, spec), "a"), {})
    assert local.urlpath == "/somewhere/a.nc"
    with web.serve(traps) as site:
        told, _ = refusals(f"{site.url}/catalog.yaml")
    assert "not available to catalogs that are read from a URL" in told


def test_a_nested_catalog_by_http_is_beside_the_one_that_names_it(traps):
    write(traps, entry(), "inner.yaml")
    nest = {"driver": "yaml_file_cat", "args": {"path": "{{CATALOG_DIR}}/inner.yaml"}}
    outside = {
        "file": f"{traps}/inner.yaml",
        "up": "{{CATALOG_DIR}}/../inner.yaml",
        "host": "http://127.0.0.1:1/inner.yaml",
        "code": MARKER,
        "text": "{{CATALOG_DIR}}/secret.txt",
    }
    specs = {"good": nest} | {
        name: {"driver": "yaml_file_cat", "args": {"path": path}} for name, path in outside.items()
    }
    (traps / "outer.yaml").write_text(yaml.safe_dump({"sources": specs}))
    with web.serve(traps) as site:
        url = f"{site.url}/outer.yaml"
        assert intake_catalog.find_entry(url, "good.a").catalog == f"{site.url}/inner.yaml"
        for name in outside:
            with pytest.raises(ConfigError):
                intake_catalog.find_entry(url, f"{name}.a")
        rows = {row[0]: row for row in examined(url)}
    assert rows.keys() == {"good.a", "good.b", *outside}


def test_catalogs_without_end_are_not_followed(traps, monkeypatch):
    monkeypatch.setattr("pipeline.doctor.targets.MAX_CATALOGS", 5)
    with web.serve(traps) as site:
        body = yaml.safe_dump(
            {
                "sources": {
                    n: {"driver": "yaml_file_cat", "args": {"path": "{{CATALOG_DIR}}/x/c.yaml"}}
                    for n in ("a", "b")
                }
            }
        )
        site.made.append(("c.yaml", lambda _: body.encode()))
        rows = examined(f"{site.url}/c.yaml")
        assert len([path for path in site.paths() if path.endswith("c.yaml")]) < 20
    assert any("nests more than 5 catalogs" in row[3] for row in rows)


def test_what_metadata_and_descriptions_say_is_not_filled(traps):
    spec = entry(metadata=METADATA | {"license": MARKER}, description=MARKER)
    driver = entries.make_driver(intake_catalog.find_entry(write(traps, spec), "a"), {})
    assert (driver.metadata["license"], driver.description) == (MARKER, MARKER)


def test_a_value_is_not_filled_again(traps):
    spec = entry(args={"urlpath": "{{planet}}/a.nc"}, parameters={"planet": {"default": "x"}})
    found = intake_catalog.find_entry(write(traps, spec), "a")
    for value in (MARKER, "{{env(AWS_SECRET_ACCESS_KEY)}}", "env(HOME)"):
        assert entries.make_driver(found, {"planet": value}).urlpath == f"{value}/a.nc"


def test_an_entry_of_itself_ends(traps):
    url = write(traps, {"driver": "filled.FilledSource", "args": {"sites": "a", "cells": "a"}})
    driver = entries.make_driver(intake_catalog.find_entry(url, "a"), {})
    with pytest.raises(ConfigError, match="composed of 'a', itself"):
        driver.to_dask()


@pytest.mark.parametrize(
    "text",
    [
        "sources: {a: !!python/object/apply:os.system [touch MARKER]}",
        "sources: {a: !!python/name:os.system }",
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "\n".join(
            f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "sources: {a: {driver: x, driver: y}}",
        f"sources: {{a: {'9' * 5000}}}",
        f"sources: {'[' * 20000}",
        "sources: &s {a: *s}",
        "sources: {a: 2020-13-45}",
        "x: " + "y" * 2**20,
    ],
)
def test_hostile_yaml_is_one_line(traps, text):
    (traps / "catalog.yaml").write_text(text)
    with pytest.raises(SoilweaveError) as caught:
        entries.read_entries(str(traps / "catalog.yaml"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_names_of_secrets_and_of_folders():
    secret = ("AWS_SECRET_ACCESS_KEY", "EARTHDATA_TOKEN", "PGPASSWORD", "MY_KEY", "AZURE_SAS")
    assert all(map(templates.SECRET_WORDS.search, (*secret, "db_pass", "GOOGLE_CREDENTIALS")))
    plain = ("SOILWEAVE_DATA", "ISMN_ARCHIVE", "MONKEY_FOLDER", "HOME", "PASSAGE_DATA", "DESIGN")
    assert not any(map(templates.SECRET_WORDS.search, plain))


def test_drivers_have_short_names_and_those_of_plugins_are_found():
    for short, current in drivers.PUBLISHED_PATHS.items():
        kinds = {drivers.driver_class(n) for n in (short, f"pipeline.sources.{short}", current)}
        assert len(kinds) == 1
        paths = {drivers.published_path(n) for n in (short, f"pipeline.sources.{short}", current)}
        assert len(paths) == 1
    assert drivers.driver_class("clinic_yearly") is drivers.driver_class("clinic.YearlySource")
    with pytest.raises(LookupError, match=r"did you mean 'points.PointsSource'"):
        drivers.driver_class("points.PointSource")


def test_protocols_are_checked_where_files_are_opened():
    assert not access.protocol_problems("zip://a.nc::s3://bucket/a.zip")
    with pytest.raises(SoilweaveError, match="protocol 'reference'"):
        access.read_file("reference::/nowhere")
