"""sites.parquet as arrays, of a table that is written by hand."""

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import StoreError
from pipeline.experiment.config import reference_arm
from pipeline.storage import tables
from pipeline.storage.artefacts import Workspace

DAYS = np.array(["2020-02-28", "2020-02-29", "2020-03-01"], "datetime64[ns]")


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """Sites "b" and "a", in this order, of an arm and the baseline; values count the rows."""
    rows = [
        {"arm": arm, "fold": f"fold={site}", "site": site, "time": day, "observation": seen}
        for arm in ("insitu", "ridge")
        for site, observed in (("b", (0.1, np.nan, 0.3)), ("a", (0.4, 0.5, 0.6)))
        for day, seen in zip(DAYS, observed, strict=True)
    ]
    table = pd.DataFrame(rows).assign(prediction=np.arange(len(rows), dtype=np.float32))
    made = Workspace(str(tmp_path))
    tables.write_table(made.url("sites.parquet"), table)
    return made


def test_columns_become_arrays_of_sites_and_days(workspace):
    found = tables.read_site_predictions(workspace, "observation", "prediction", "fold")
    assert found.ids == ("b", "a")
    assert found.days.dtype == "datetime64[D]"
    np.testing.assert_array_equal(found.days, DAYS)
    assert list(found.rows) == ["insitu", "ridge"]
    np.testing.assert_array_equal(found.values("insitu", "prediction"), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found.values("ridge", "prediction"), [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(found.observed, [[0.1, np.nan, 0.3], [0.4, 0.5, 0.6]])
    assert found.values("ridge", "fold").tolist() == [["fold=b"] * 3, ["fold=a"] * 3]


def test_only_the_columns_that_are_asked_for_are_read(workspace):
    found = tables.read_site_predictions(workspace, "prediction")
    assert set(found.rows["insitu"]) == {"arm", "site", "time", "prediction"}


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        StoreError, match=r"sites\.parquet: not found; run the stage that writes it"
    ):
        tables.read_site_predictions(Workspace(str(tmp_path)), "prediction")


def test_the_reference_arm_is_multiscale_or_the_first():
    assert reference_arm(["insitu", "multiscale", "satellite"]) == "multiscale"
    assert reference_arm(("satellite", "insitu")) == "satellite"
