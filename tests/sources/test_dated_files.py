"""NetCDF files named by date: one is a template, the others are read and checked when asked for."""

import datetime

import numpy as np
import pytest
import web
import xarray as xr
import yaml
from miniatures_forcing import days, nldas2, nldas3

from pipeline.catalog import experiment_sources, intake_catalog
from pipeline.errors import DataError
from pipeline.experiment import load
from pipeline.prepare import block_task
from pipeline.sources.gridded import GriddedSource

NLDAS3 = "%Y%m/NLDAS_FOR0010_D.A%Y%m%d.030.beta.nc"
TAIR = {"air_temperature": {"from": "Tair", "units": "K"}}


def problem(source, compute=False):
    """The one error of opening, or of reading what was opened."""
    with pytest.raises(DataError) as caught:
        source.to_dask().load() if compute else source.to_dask()
    return str(caught.value)


def test_dated_files_are_read_when_asked_for_and_checked_then(tmp_path):
    held = nldas3(tmp_path, "2020-02-28", "2020-03-03")
    source = GriddedSource(str(tmp_path / NLDAS3), TAIR, period="2020-02-28..2020-03-02")
    found = source.to_dask()
    np.testing.assert_allclose(found.air_temperature, held.Tair)
    spoiled = tmp_path / "202003" / "NLDAS_FOR0010_D.A20200301.030.beta.nc"
    good = spoiled.read_bytes()
    next_day = tmp_path / "202003" / "NLDAS_FOR0010_D.A20200302.030.beta.nc"
    for content, told in (
        (next_day.read_bytes(), "time: 2020-03-02T00:00, expected 2020-03-01T00:00 from the"),
        (good[:3000], "cannot be read, truncated or no NetCDF-4"),
        (b"<html>Login</html>", "cannot be read, truncated or no NetCDF-4"),
    ):
        spoiled.write_bytes(content)
        found = source.to_dask()
        with pytest.raises(DataError, match=r"A20200301\.030\.beta\.nc: ") as caught:
            found.load()
        assert told in str(caught.value)
    with xr.open_dataset(next_day, engine="h5netcdf") as raw:
        other = raw.load().assign_coords(time=days("2020-03-01", "2020-03-02"))
    other = other.assign_coords(lon=other.lon + 1).drop_vars("Rainf")
    other.to_netcdf(spoiled, engine="h5netcdf")
    told = problem(source, compute=True)
    assert "another lon than the other files" in told
    spoiled.unlink()
    assert "missing: 2020-03-01; get them from the provider" in problem(source)


def test_dated_files_over_http_that_are_missing_or_refused(tmp_path):
    held = nldas3(tmp_path, "2020-02-28", "2020-03-02")
    (tmp_path / "202002" / "NLDAS_FOR0010_D.A20200229.030.beta.nc").unlink()
    with web.serve(tmp_path) as site:
        args = {"period": "2020-02-28..2020-03-01"}
        source = GriddedSource(f"{site.url}/{NLDAS3}", TAIR, **args)
        told = problem(source, compute=True)
        assert "A20200229.030.beta.nc: not found" in told
        lenient = GriddedSource(f"{site.url}/{NLDAS3}", TAIR, gaps="allowed", **args)
        found = lenient.to_dask().air_temperature.values
        assert np.isnan(found[1]).all()
        np.testing.assert_allclose(found[[0, 2]], held.Tair.values[[0, 2]])
        site.token = "mine"
        assert "refused (401): missing, wrong or expired credentials" in problem(lenient)


def test_files_of_hours_are_fetched_in_one_piece_and_once_for_all_variables(tmp_path):
    held = nldas2(tmp_path, "2020-02-29", "2020-03-01", ("Tair", "PSurf"))
    name = "NLDAS_FORA0125_H.A%Y%m%d.%H00.020.nc"
    mapping = {
        ours: {"from": theirs, "units": "K" if theirs == "Tair" else "Pa", "daily": "mean"}
        for ours, theirs in (("air_temperature", "Tair"), ("surface_pressure", "PSurf"))
    }
    with web.serve(tmp_path) as site:
        source = GriddedSource(f"{site.url}/%Y/%j/{name}", mapping, period="2020-02-29..2020-02-29")
        dataset = source.to_dask()
        before = len(site.asked)
        found = dataset.load()
        gets = [each for each in site.asked[before:] if each[0] == "GET"]
    np.testing.assert_allclose(found.air_temperature[0], held.Tair.mean("time"), rtol=1e-6)
    np.testing.assert_allclose(found.surface_pressure[0], held.PSurf.mean("time"), rtol=1e-6)
    assert len(gets) == 24


@pytest.mark.parametrize("place", ["folder", "server"])
def test_allowed_gaps_at_the_end_are_days_that_have_not_come_yet(tmp_path, place):
    nldas3(tmp_path, "2020-02-26", "2020-03-04")
    for day in ("20200228", "20200302", "20200303"):
        (tmp_path / day[:6] / f"NLDAS_FOR0010_D.A{day}.030.beta.nc").unlink()
    day, told = datetime.date.fromisoformat, {}
    with web.serve(tmp_path) as site:
        root = str(tmp_path) if place == "folder" else site.url
        for gaps in ("allowed", ["02-28"], []):
            catalog = tmp_path / f"{len(told)}.yaml"
            catalog.write_text(yaml.safe_dump(dated_catalog(f"{root}/{NLDAS3}", gaps)))
            experiment = load.load_experiment("demo", [f"sources.catalog={catalog}"])
            told[str(gaps)] = [
                intake_catalog.last_day(experiment, "cells", day("2020-02-26"), day(until))[0]
                for until in ("2020-02-28", "2020-03-01", "2020-03-04")
            ]
    reached = [day("2020-02-27"), day("2020-03-01"), day("2020-03-01")]
    stops = [day("2020-02-27")] * 3
    assert told == {"allowed": reached, "['02-28']": reached, "[]": stops}


def test_a_block_opens_the_file_of_a_day_once_for_all_variables(tmp_path, monkeypatch):
    held = nldas3(tmp_path, "2020-02-28", "2020-03-03")
    mapping = TAIR | {"surface_pressure": {"from": "PSurf", "units": "Pa"}}
    catalog, period = tmp_path / "catalog.yaml", "[2020-02-28, 2020-03-02]"
    catalog.write_text(yaml.safe_dump(dated_catalog(str(tmp_path / NLDAS3), [], mapping)))
    settings = [f"sources.catalog={catalog}", "sources.forcing=[cells]"]
    settings += [f"{name}={period}" for name in ("period", "train_period", "test_period")]
    experiment, opened = load.load_experiment("demo", settings), []
    sources = experiment_sources.open_sources(experiment, 0, forcing_only=True)
    open_part = GriddedSource.open_part
    monkeypatch.setattr(
        GriddedSource, "open_part", lambda self, url: opened.append(url) or open_part(self, url)
    )
    writer = block_task.BlockWriter(experiment, sources, 0, str(tmp_path), {}, forcing_only=True)
    for name in sources.forcing:
        values = writer._values(sources.forcing[name], name)
        np.testing.assert_allclose(values, held[mapping[name]["from"]], rtol=1e-6)
    assert len(opened) == len({*opened}) == 4


def dated_catalog(url, gaps, mapping=TAIR):
    """A catalog of one entry, with files by date."""
    metadata = {"support": "cell", "license": "CC0-1.0", "time_convention": "UTC day"}
    metadata |= {"period": "2020-02-26..", "auth": "none"}
    args = {"urlpath": url, "mapping": mapping, "gaps": gaps}
    entry = {"driver": "gridded.GriddedSource", "args": args, "metadata": metadata}
    return {"sources": {"cells": entry}}
