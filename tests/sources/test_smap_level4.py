"""SMAP's Level 4, as published: means of days, days with too few steps, and faults."""

from __future__ import annotations

from datetime import date

import intake
import numpy as np
import pytest
import yaml
from miniatures_smap import L4

from pipeline.errors import DataError
from pipeline.grid import ease
from pipeline.sources.smap import SmapL4Source

CONUS = (-125.0, 25.0, -67.0, 50.0)
SURFACE = {"soil_moisture": {"from": "sm_surface", "units": "m3 m-3"}}


def steps(n: int, value: float = 0.1, **args) -> list[L4]:
    """The first steps of a day, their values rising by 0.01."""
    return [
        L4(f"2015-04-06T{3 * i + 1:02d}:30:00", {(400, 970): value + i / 100}, **args)
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def a_day(tmp_path_factory):
    folder = tmp_path_factory.mktemp("l4")
    for one in steps(8):
        one.write(folder)
    return folder


def level4(folder, period=(date(2015, 4, 5), date(2015, 4, 6)), **args) -> SmapL4Source:
    made = SmapL4Source(SURFACE, urlpath=f"{folder}/SMAP_L4_SM_gph_*.h5", **args)
    made.period, made.region = period, CONUS
    return made


def test_a_day_of_level_4_is_the_mean_of_its_steps(a_day):
    dataset = level4(a_day).to_dask()
    whole = ease.Window(0, 0, 406, 964, 4)
    assert dataset.soil_moisture.dtype == "float32"
    found = dataset.soil_moisture.sel(
        lat=whole.cell_lat[400], lon=whole.cell_lon[970], method="nearest", tolerance=1e-6
    )
    np.testing.assert_allclose(found.values, [np.nan, 0.135], rtol=1e-6)
    assert np.isfinite(dataset.soil_moisture.values).sum() == 1


def test_a_day_with_too_few_steps_is_a_gap(a_day, tmp_path):
    for path in sorted(a_day.iterdir())[:6]:
        (tmp_path / path.name).symlink_to(path)
    day6 = (date(2015, 4, 6), date(2015, 4, 6))
    assert np.isnan(level4(tmp_path, day6).to_dask().soil_moisture.values).all()
    enough = level4(tmp_path, day6, min_steps=6).to_dask().soil_moisture.values
    np.testing.assert_allclose(np.nanmax(enough), 0.125, rtol=1e-6)


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ({"group": "Analysis_Data"}, "group Geophysical_Data: missing; the file has"),
        ({"flip": True}, "cell_lat: .* where the grid has"),
    ],
)
def test_faults_of_level_4_are_named(tmp_path, spoiled, told):
    steps(1, **spoiled)[0].write(tmp_path)
    with pytest.raises(DataError, match=f"gph_20150406T013000_Vv8011_001.h5: {told}"):
        level4(tmp_path, min_steps=1).to_dask()


def test_a_later_step_that_is_damaged_is_named(a_day, tmp_path):
    for path in sorted(a_day.iterdir()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    last = tmp_path / sorted(a_day.iterdir())[-1].name
    last.write_bytes(last.read_bytes()[:-5000])
    dataset = level4(tmp_path).to_dask()
    with pytest.raises(DataError, match=r"T223000_Vv8011_001\.h5: cannot be read, truncated"):
        dataset.compute()


def test_through_a_catalog_the_latest_production_of_a_step_wins(a_day, tmp_path):
    for path in a_day.iterdir():
        (tmp_path / path.name).symlink_to(path)
    L4("2015-04-06T04:30:00", {(400, 970): 0.91}, production="Vv8011_002").write(tmp_path)
    args = {"urlpath": f"{tmp_path}/*_gph_*.h5", "mapping": SURFACE}
    told = {"level4": {"driver": "pipeline.sources.smap.SmapL4Source", "args": args}}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"sources": told}))
    dataset = intake.open_catalog(str(tmp_path / "catalog.yaml"))["level4"].to_dask()
    assert dataset.soil_moisture.shape == (1, 1624, 3856)
    here = dataset.soil_moisture.isel(time=0, lat=400, lon=970).values
    np.testing.assert_allclose(here, 0.135 + 0.8 / 8, rtol=1e-6)
    leap = level4(tmp_path, (date(2016, 2, 29), date(2016, 2, 29)))
    with pytest.raises(DataError, match="no granule from 2016-02-29 to 2016-02-29"):
        leap.to_dask()
