"""`doctor`: each planted fault, and nothing else, is found, where it is and with a remedy."""

from __future__ import annotations

import re

import clinic
import dask
import dask.array
import numpy as np
import pytest
import web
import xarray as xr
import yaml
from clinic import rows

from pipeline import cli, doctor
from pipeline.doctor import targets
from pipeline.errors import ConfigError, DataError
from pipeline.progress import SilentProgress


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return clinic.write(tmp_path_factory.mktemp("healthy") / "ward")


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def ward(healthy, tmp_path):
    """The experiment file of sources in good health, for a test to spoil."""
    return clinic.copy(healthy, tmp_path / "ward")


def found(target, *settings):
    """(entry, year, check) of each problem, and the rows themselves."""
    healthy, table, _ = rows(target, *settings)
    ill = [row for row in table if row[2] != "healthy"]
    assert healthy == (not ill)
    assert all(row[4] for row in ill), "a problem without a remedy"
    return [row[:3] for row in ill], ill


def test_a_healthy_experiment_is_called_healthy_with_what_was_looked_at(ward):
    healthy, table, lines = rows(ward)
    assert healthy
    assert [row[0] for row in table] == list(clinic.ENTRIES)
    assert {row[2] for row in table} == {"healthy"}
    assert {row[0]: row[1] for row in table} == {
        **dict.fromkeys(clinic.ENTRIES, "2019..2021"),
        "attributes": "",
    }
    assert table[0][3] == "looked at 366 of 366 days, 12 of 16 lat, 12 of 17 lon in 2020"
    assert re.fullmatch(r"looked at 12 of \d+ lat, 12 of \d+ lon", table[1][3])
    assert lines == ["5 entries, 13 years in all: 5 healthy"]


def alone(monkeypatch, *entries):
    """Examine these entries of a target only: they are many, and each takes its time."""
    all_of = targets.find_targets
    chosen = lambda *of: [case for case in all_of(*of) if case.label in entries]  # noqa: E731
    monkeypatch.setattr(targets, "find_targets", chosen)


def in_file(file, change):
    return lambda folder: clinic.rewrite(folder / file, change)


def in_entry(name, change):
    return lambda folder: clinic.edit(
        folder / "catalog.yaml", lambda tree: change(tree["sources"][name])
    )


def units_of(name, units):
    return lambda ds: ds.assign({name: ds[name].assign_attrs(units=units)})


def scaled(name, slope, offset=0.0):
    return lambda ds: ds.assign({name: (ds[name] * slope + offset).assign_attrs(ds[name].attrs)})


def one_day(name, value):
    """A value on a day in the middle of the sample."""

    def change(ds):
        values = ds[name].values.copy()
        values[len(values) // 2] = value
        return ds.assign({name: (ds[name].dims, values, ds[name].attrs)})

    return change


def swapped(ds):
    """Two days in each other's place."""
    order = np.arange(ds.sizes["time"])
    order[[100, 101]] = order[[101, 100]]
    return ds.isel(time=order)


def doubled(ds):
    times = ds.time.values.copy()
    times[101] = times[100]
    return ds.assign_coords(time=times)


PLANTED = {
    "other units stated": (
        in_file("forcing/2020.nc", units_of("T2", "degC")),
        ("forcing", "2020", "units"),
        "T2: units 'degC', expected 'K'",
    ),
    "other units, not stated": (
        in_file("forcing/2020.nc", scaled("T2", 1, -273.15)),
        ("forcing", "2020", "units"),
        "air_temperature: .* K; these look like 'degC'",
    ),
    "percent for fractions": (
        in_file("product.nc", scaled("SM", 100)),
        ("product", "2019..2021", "units"),
        "soil_moisture: .* m3 m-3; these look like 'percent'",
    ),
    "fractions for percent": (
        in_file("attributes.nc", scaled("SAND", 0.01)),
        ("attributes", "", "units"),
        r"sand: .* percent; these look like fractions",
    ),
    "days shuffled": (
        in_file("forcing/2020.nc", swapped),
        ("forcing", "2020", "time axis"),
        "day 2020-04-10 comes after 2020-04-11",
    ),
    "a day twice": (
        in_file("forcing/2020.nc", doubled),
        ("forcing", "2020", "time axis"),
        "day 2020-04-10 comes after 2020-04-10",
    ),
    "a leap day missing": (
        in_file("forcing/2020.nc", lambda ds: ds.isel(time=np.arange(366) != 59)),
        ("forcing", "2020", "gaps"),
        "1 of 366 days missing: 2020-02-29",
    ),
    "a file of a year missing": (
        lambda folder: (folder / "forcing/2020.nc").unlink(),
        ("forcing", "2020", "missing year"),
        "2020.nc: not found",
    ),
    "a year missing in a file": (
        in_file("footprints.nc", lambda ds: ds.isel(time=ds.time.dt.year != 2020)),
        ("footprints", "2020", "missing year"),
        "no day of 2020-01-01..2020-12-31",
    ),
    "times that cannot be decoded": (
        lambda folder: clinic.spoil_times(folder / "forcing/2020.nc"),
        ("forcing", "2020", "opening"),
        "2020.nc: cannot be read.* Can't synchronously read data",
    ),
    "a truncated file": (
        lambda folder: (folder / "forcing/2020.nc").write_bytes(
            (folder / "forcing/2020.nc").read_bytes()[:-5000]
        ),
        ("forcing", "2020", "opening"),
        "2020.nc: cannot be read, truncated or no NetCDF-4",
    ),
    "all fill": (
        in_file("forcing/2020.nc", scaled("PR", np.nan)),
        ("forcing", "2020", "all fill"),
        "precipitation: no value in the sample",
    ),
    "an attribute all fill": (
        in_file("attributes.nc", scaled("ELEV", np.nan)),
        ("attributes", "", "all fill"),
        "elevation: no value in the sample",
    ),
    "out of range": (
        in_file("forcing/2020.nc", one_day("T2", 400)),
        ("forcing", "2020", "range"),
        "air_temperature: 0.27 % of the sample is outside 180 to 340 K",
    ),
    "a fill that is not masked": (
        in_file("forcing/2020.nc", one_day("T2", -9999)),
        ("forcing", "2020", "range"),
        "-9999 to",
    ),
    "rain too heavy by hours": (
        in_file("forcing/2020.nc", scaled("PR", 3600)),
        ("forcing", "2020", "units"),
        "precipitation: .* these look like rates scaled",
    ),
    "rows upside down": (
        in_file("forcing/2019.nc", lambda ds: ds.assign_coords(lat=ds.lat.values[::-1])),
        ("forcing", "2019", "latitude"),
        "air_temperature: warms towards the pole",
    ),
    "latitude and longitude exchanged": (
        in_file("attributes.nc", lambda ds: ds.rename(lat="lon", lon="lat")),
        ("attributes", "", "latitude"),
        "lat: -106.5 to -90.5, expected degrees of at most 90",
    ),
    "sites with them exchanged": (
        in_file("sites.nc", lambda ds: ds.rename(lat="lon", lon="lat")),
        ("sites", "2019..2021", "latitude"),
        "lat: -10",
    ),
    "no licence": (
        in_entry("sites", lambda spec: spec["metadata"].pop("license")),
        ("sites", "", "metadata"),
        "license missing",
    ),
    "hardly any metadata": (
        in_entry("product", lambda spec: spec.update(metadata={"period": "2019-11-20.."})),
        ("product", "", "metadata"),
        "license, doi, auth, region, native_units, native_grid, time_convention, support missing",
    ),
    "a variable under another name": (
        in_file("product.nc", lambda ds: ds.rename(SM="sm")),
        ("product", "2019..2021", "variables"),
        "SM: missing; the file has",
    ),
    "a moved path": (
        in_entry("footprints", lambda spec: spec["args"].update(urlpath="/gone/moved.nc")),
        ("footprints", "2019..2021", "opening"),
        "/gone/moved.nc: not found",
    ),
    "an environment variable": (
        in_entry(
            "product",
            lambda s: s.update(
                args=s["args"] | {"urlpath": "{{env(CLINIC_DATA)}}/a.nc"},
                environment=["CLINIC_DATA"],
            ),
        ),
        ("product", "", "environment"),
        "CLINIC_DATA is not set",
    ),
    "a token in a template": (
        in_entry("product", lambda s: s["args"].update(urlpath="/{{env(CLINIC_TOKEN)}}/a.nc")),
        ("product", "", "opening"),
        "CLINIC_TOKEN looks like the name of a secret",
    ),
    "a period that ends early": (
        in_entry("forcing", lambda s: s["metadata"].update(period="2019-01-01..2020-12-31")),
        ("forcing", "", "period"),
        "the entry's period 2019-01-01..2020-12-31 does not include all of the experiment's "
        "2019-11-20..2021-01-15",
    ),
    "a driver that is none": (
        in_entry("product", lambda spec: spec.update(driver="pipeline.sources.no.Such")),
        ("product", "", "opening"),
        "cannot be opened",
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_exactly_the_planted_fault_is_found(ward, fault, monkeypatch):
    for name in ("CLINIC_DATA", "CLINIC_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    plant, expected, says = PLANTED[fault]
    plant(ward.parent)
    alone(monkeypatch, expected[0])
    short, ill = found(ward)
    assert short == [expected], ill
    assert re.search(says, ill[0][3]), ill[0][3]


def test_a_fill_value_is_named_in_the_remedy(ward, monkeypatch):
    alone(monkeypatch, "forcing")
    in_file("forcing/2020.nc", one_day("T2", -9999))(ward.parent)
    _, [row] = found(ward)
    assert "-9999 looks like a fill value that is not masked" in row[4]


def test_many_faults_of_many_entries_are_told_in_one_go(ward):
    for fault in ("other units stated", "a moved path", "no licence", "an attribute all fill"):
        PLANTED[fault][0](ward.parent)
    in_file("sites.nc", scaled("SM", 7.0))(ward.parent)
    in_file("forcing/2019.nc", scaled("PR", np.nan))(ward.parent)
    short, _ = found(ward)
    assert sorted(short) == [
        ("attributes", "", "all fill"),
        ("footprints", "2019..2021", "opening"),
        ("forcing", "2019", "all fill"),
        ("forcing", "2020", "units"),
        ("sites", "", "metadata"),
        ("sites", "2019..2021", "range"),
    ]
    _, _, lines = rows(ward)
    assert lines == ["5 entries, 13 years in all: 1 healthy; 6 problems in 4"]


def test_a_few_odd_readings_of_sites_are_left_to_quality_control(ward, monkeypatch):
    alone(monkeypatch, "sites")
    in_file("sites.nc", one_day_of_a_site)(ward.parent)
    assert found(ward)[0] == []


def one_day_of_a_site(ds):
    values = ds.SM.values.copy()
    values[4, 7] = 3.0
    return ds.assign(SM=(ds.SM.dims, values, ds.SM.attrs))


@pytest.mark.parametrize(
    ("domain", "says"),
    [
        ({"west": -105, "south": 31, "east": -70, "north": 43}, "covers 43 % of the domain"),
        ({"west": 5, "south": 44, "east": 12, "north": 49}, "nothing in the domain 5 to 12 E"),
    ],
)
def test_a_domain_that_is_not_reached(ward, domain, says, monkeypatch):
    alone(monkeypatch, "attributes")
    sides = [f"domain.{side}_degrees={edge}" for side, edge in domain.items()]
    short, ill = found(ward, *sides)
    assert short == [("attributes", "", "domain")]
    assert says in ill[0][3]


def test_longitudes_of_0_to_360_reach_a_domain_in_the_west(ward, monkeypatch):
    alone(monkeypatch, "product")
    in_file("product.nc", lambda ds: ds.assign_coords(lon=ds.lon + 360))(ward.parent)
    assert found(ward)[0] == []


def test_an_entry_that_the_catalog_lacks_hides_no_other(ward, monkeypatch):
    alone(monkeypatch, "attributes", "footprint")
    in_file("attributes.nc", scaled("ELEV", np.nan))(ward.parent)
    short, ill = found(ward, "sources.satellite=footprint")
    assert short == [("attributes", "", "all fill"), ("footprint", "", "opening")]
    assert "no entry 'footprint'; did you mean 'footprints'?" in ill[1][3]


def served(ward, site, **more):
    def change(spec):
        spec["args"] |= {"urlpath": f"{site.url}/sites.nc?Signature=s3cr3t", **more}

    in_entry("sites", change)(ward.parent)


@pytest.fixture
def clinic_web(ward, monkeypatch):
    alone(monkeypatch, "sites")
    monkeypatch.setattr("pipeline.sources.shared.http_errors.FIRST_WAIT_S", 0.01)
    with web.serve(ward.parent) as site:
        served(ward, site)
        yield site


@pytest.mark.parametrize(
    ("statuses", "expected", "says"),
    [
        ([403] * 99, ("sites", "2019..2020", "credentials"), r"refused \(403\)"),
        ([401] * 99, ("sites", "2019..2020", "credentials"), r"refused \(401\)"),
        ([404] * 99, ("sites", "2019..2021", "opening"), "not found"),
        ([503] * 99, ("sites", "2019..2020", "opening"), "answers 503, asked 5 times"),
    ],
)
def test_what_a_server_refuses_is_told_without_secrets(ward, clinic_web, statuses, expected, says):
    clinic_web.fails("sites", *statuses)
    short, ill = found(ward)
    assert short == [expected], ill
    assert re.search(says, ill[0][3])
    assert ill[0][3].endswith("; years not tried: 1") == (statuses[0] != 404)
    assert "s3cr3t" not in str(ill)


def test_a_server_that_is_busy_for_a_moment_is_no_fault(ward, clinic_web):
    clinic_web.fails("sites", 503, 503)
    assert found(ward)[0] == []


def test_a_catalog_is_examined_over_the_period_it_states(ward):
    folder = ward.parent
    PLANTED["all fill"][0](folder)
    healthy, table, _ = rows(folder / "catalog.yaml")
    assert not healthy
    assert [row[:3] for row in table] == [
        ("forcing", "2020", "all fill"),
        *((name, "2019..2021", "healthy") for name in clinic.ENTRIES[1:]),
    ]


def test_nested_catalogs_are_walked(ward):
    folder = ward.parent
    inner = {"driver": "yaml_file_cat", "args": {"path": "{{CATALOG_DIR}}/catalog.yaml"}}
    gone = {"driver": "yaml_file_cat", "args": {"path": "{{CATALOG_DIR}}/gone.yaml"}}
    main = folder / "main.yaml"
    main.write_text(yaml.safe_dump({"sources": {"inner": inner, "gone": gone}}, sort_keys=False))
    in_entry("sites", lambda spec: spec["metadata"].pop("doi"))(folder)
    healthy, table, _ = rows(main)
    assert not healthy
    assert [row[0] for row in table] == [*(f"inner.{name}" for name in clinic.ENTRIES), "gone"]
    ill = {row[0]: row[2:4] for row in table if row[2] != "healthy"}
    assert ill["inner.sites"] == ("metadata", "doi missing")
    assert "gone.yaml" in ill["gone"][1]
    assert ill.keys() == {"inner.sites", "gone"}


def test_what_was_never_run_is_said(ward, monkeypatch):
    alone(monkeypatch, "product", "attributes")
    in_entry("product", lambda spec: spec["metadata"].update(verified=False))(ward.parent)
    assert rows(ward)[2][1] == "not yet verified against the live source: product"


@pytest.mark.parametrize("target", ["scam", "/no/such.yaml"])
def test_a_target_that_is_neither_is_refused(target):
    with pytest.raises(ConfigError, match="not found"):
        doctor.examine(target, [], SilentProgress())


def test_settings_are_those_of_an_experiment(ward):
    with pytest.raises(ConfigError, match="is a catalog"):
        doctor.examine(str(ward.parent / "catalog.yaml"), ["period=x"], SilentProgress())


@pytest.fixture
def soilweave(monkeypatch, capsys):
    """Run `doctor` on the command line, on a wide terminal: exit code, output, errors."""

    def command(*args):
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.setattr("sys.argv", ["soilweave", "doctor", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return command


def test_the_exit_status_is_that_of_the_health(ward, soilweave, monkeypatch):
    alone(monkeypatch, "attributes", "sites")
    code, out, _ = soilweave(ward)
    assert code == 0
    assert "2 entries, 4 years in all: 2 healthy\n" in out
    in_entry("sites", lambda spec: spec["metadata"].pop("license"))(ward.parent)
    in_file("attributes.nc", lambda ds: ds.rename(ELEV="[red]"))(ward.parent)
    code, out, _ = soilweave(ward)
    assert code == 1
    assert re.search(r"sites +│ +│ metadata +│ license missing +│ add it to the entry", out)
    assert "ELEV: missing; the file has ['[red]', 'SAND']" in out
    assert "2 entries, 4 years in all: 0 healthy; 2 problems in 2\n" in out


def test_on_the_command_line_settings_and_targets_are_taken_and_refused(soilweave, ward):
    code, out, err = soilweave("scam")
    assert (code, out) == (2, "")
    assert "experiment 'scam': not found; did you mean 'scan'?" in err
    code, out, err = soilweave(ward, "--set", "train.updtes=3")
    assert code == 2
    assert "did you mean 'updates'" in err


def test_a_form_that_no_driver_should_give_is_a_finding_too(ward, monkeypatch):
    alone(monkeypatch, "product")
    monkeypatch.setattr(clinic.GriddedSource, "to_dask", lambda self: xr.Dataset({"a": 1.0}))
    assert found(ward)[0] == [("product", "2019..2021", "opening")]


def refuse():
    raise DataError("granule.h5", "cannot be read, truncated")


class BrokenSource(clinic.YearlySource):
    """Rain that a deferred read fails to give; temperature that is all fill."""

    def to_dask(self):
        lazy = super().to_dask()
        rain = lazy.precipitation
        failing = dask.array.from_delayed(dask.delayed(refuse)(), rain.shape, rain.dtype)
        kelvin = lazy.air_temperature.astype("float32") * np.float32(np.nan)
        kelvin.attrs = lazy.air_temperature.attrs
        return lazy.assign(precipitation=rain.copy(data=failing), air_temperature=kelvin)


def test_a_variable_that_cannot_be_read_hides_no_other(ward, monkeypatch):
    alone(monkeypatch, "forcing")
    monkeypatch.setattr(clinic, "BrokenSource", BrokenSource, raising=False)
    in_entry("forcing", lambda spec: spec.update(driver="clinic.BrokenSource"))(ward.parent)
    short, ill = found(ward)
    assert short == [("forcing", "2019..2021", "opening"), ("forcing", "2019..2021", "all fill")]
    assert ill[0][3] == "precipitation: granule.h5: cannot be read, truncated"
    assert ill[1][3] == "air_temperature: no value in the sample"
