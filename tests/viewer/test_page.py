"""The page in Chromium, wide and narrow: its numbers are those of xarray, its controls work."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import web
import xarray as xr
from PIL import Image

from pipeline import viewer
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube

pytestmark = pytest.mark.viewer

TARGET, STEP = "soil_moisture", 1e-4
AXE = Path(__file__).resolve().parents[2] / "infra/viewer/node_modules/axe-core/axe.min.js"
everywhere = pytest.mark.parametrize(
    ("place", "width"),
    [("workspace", 1280), ("bucket", 1280), ("bucket", 360), ("view", 360)],
    indirect=["place"],
)
each_width = pytest.mark.parametrize("width", [1280, 360])


@pytest.fixture(scope="module")
def maps(folder) -> dict[str, xr.Dataset]:
    """The maps by arm, as any user opens them."""
    return {path.stem: xr.open_zarr(path).load() for path in (folder / "maps").glob("*.zarr")}


def go_to(page, day):
    """Choose a day in the date field, and wait until it is drawn."""
    page.fill("[data-testid=date]", str(day)[:10])
    page.wait_for_selector(f"#map[data-day='{str(day)[:10]}']")


def pixel(page, row, col):
    """Where a cell is on the page; the map is scrolled into view."""
    page.locator("#map").scroll_into_view_if_needed()
    return page.evaluate("cell => viewer.pixelOf(cell)", {"row": int(row), "col": int(col)})


def point_at(page, row, col, day):
    """Put the cursor on a cell, and wait until it is told of that day."""
    page.mouse.move(*pixel(page, row, col))
    number = (np.datetime64(day, "D") - np.datetime64("1970-01-01")).astype(int)
    page.wait_for_selector(
        f"#reading[data-row='{row}'][data-col='{col}'][data-day='{number}']", state="attached"
    )


def click(page, row, col):
    """Click a cell, and wait for its series."""
    page.mouse.click(*pixel(page, row, col))
    page.wait_for_selector(f"#series[data-cell='{row},{col}']", state="attached")


def text(page, name):
    return page.locator(f"[data-testid={name}]").inner_text().strip()


def hide_sites(page):
    """So that a click means the cell, and not a site beside it."""
    page.click("summary")
    page.uncheck("#sites")
    page.click("summary")


def random_places(maps, n, seed=0):
    """Days, rows and columns, half of them flagged or without a value if there are such."""
    rng = np.random.default_rng(seed)
    n_days, rows, cols = maps[TARGET].shape
    odd = np.argwhere(maps.quality_flag.values > 0)
    chosen = [*rng.choice(odd, n // 2)] if len(odd) else []
    while len(chosen) < n:
        chosen.append(np.array([rng.integers(k) for k in (n_days, rows, cols)]))
    return [[int(v) for v in each] for each in chosen]


@everywhere
def test_the_value_under_the_cursor_is_that_of_xarray(place, width, opened, maps):
    page, of = opened(place, width), maps["multiscale"]
    factor = of[f"{TARGET}_std"].attrs["interval_factor_90"]
    bits = dict(zip(of.quality_flag.attrs["flag_masks"],
                    of.quality_flag.attrs["flag_meanings"].split(), strict=True))  # fmt: skip
    seen = 0
    for day, row, col in random_places(of, 50, seed=width):
        cell = of.isel(time=day, y=row, x=col)
        go_to(page, cell.time.values)
        point_at(page, row, col, cell.time.values)
        value, flag = float(cell[TARGET]), int(cell.quality_flag)
        if np.isnan(value):
            assert text(page, "value").startswith("no value")
            assert not page.locator("#interval").is_visible()
        else:
            told = re.match(r"(-?[\d.]+) m³ m⁻³ \((-?[\d.]+) %\)", text(page, "value"))
            assert float(told[1]) == pytest.approx(value, abs=STEP / 2)
            assert float(told[2]) == pytest.approx(100 * value, abs=0.051)
            spread = factor * float(cell[f"{TARGET}_std"])
            valid = np.array(of[TARGET].attrs["valid_range"]) * STEP
            bounds = np.clip([value - spread, value + spread], *valid)
            words = re.match(r"between (\d+) and (\d+) %", text(page, "interval"))
            assert [int(w) for w in words.groups()] == pytest.approx(100 * bounds, abs=0.51)
            assert "a probe at a typical place in this cell" in text(page, "interval")
            share = float(cell[f"{TARGET}_percentile"])
            words = re.match(r"(wetter|drier) than (\d+) %", text(page, "percentile"))
            expected = share if words[1] == "wetter" else 100 - share
            assert int(words[2]) == pytest.approx(expected, abs=0.51)
            seen += 1
        names = {name.replace("_", " ") for bit, name in bits.items() if flag & bit}
        told = page.locator("#flags li").all_inner_texts()
        assert {each.partition(":")[0] for each in told} == names
    assert seen >= 10


@everywhere
def test_the_series_of_a_cell_is_that_of_xarray(place, width, opened, maps, folder):
    page, of = opened(place, width), maps["multiscale"]
    workspace = Workspace(str(folder))
    cube = Cube.of(workspace.place(workspace.described()), workspace)
    satellite = cube.series(cube.footprints, TARGET)
    hide_sites(page)
    valued = np.argwhere(of[TARGET].notnull().any("time").values)
    for row, col in np.random.default_rng(width).choice(valued, 3).tolist():
        click(page, row, col)
        with page.expect_download() as downloading:
            page.click("#csv")
        lines = Path(downloading.value.path()).read_text().splitlines()
        table = pd.DataFrame(csv.DictReader(io.StringIO("\n".join(lines[3:]))))
        assert list(table.date) == [str(day)[:10] for day in of.time.values]
        cell = of.isel(y=row, x=col)
        for column, values in (
            (TARGET, cell[TARGET].values),
            (f"{TARGET}_std", cell[f"{TARGET}_std"].values),
            ("quality_flag", cell.quality_flag.values),
            ("satellite_footprint", satellite[:, row // 4, col // 4]),
        ):
            told = pd.to_numeric(table[column]).to_numpy()
            np.testing.assert_allclose(told, values, atol=0.51 * STEP, err_msg=column)
        summary = page.get_attribute("#series", "aria-label")
        assert f"{100 * np.nanmean(cell[TARGET]):.0f} % on average" in summary
        assert "the 36 km footprint" in page.inner_text("#series-keys")


def expect_day(page, day):
    page.wait_for_selector(f"#map[data-day='{day}']")


@each_width
def test_time_moves_by_every_control(viewed, width, opened):
    page = opened(viewed, width)
    expect_day(page, "2018-12-31")  # the last one
    for control, day in (
        ("#day-back", "2018-12-30"),
        ("#month-back", "2018-11-30"),
        ("#day-on", "2018-12-01"),
        ("#month-on", "2018-12-31"),  # the last one, as 1 January is not mapped
    ):
        page.click(control)
        expect_day(page, day)
    page.locator("#map").focus()
    for key, day in (
        ("ArrowLeft", "2018-12-30"),
        ("ArrowDown", "2018-11-30"),
        ("ArrowRight", "2018-12-01"),
        ("ArrowUp", "2018-12-31"),
    ):
        page.keyboard.press(key)
        expect_day(page, day)
    assert page.input_value("[data-testid=date]") == "2018-12-31"
    page.fill("#slider", str(np.datetime64("2016-03-01").astype(int)))
    expect_day(page, "2016-03-01")
    page.fill("[data-testid=date]", "2016-02-28")
    expect_day(page, "2016-02-28")
    assert page.get_attribute("#slider", "aria-valuetext") == "28 February 2016"


def test_time_plays_at_three_speeds_and_stops(viewed, opened):
    page = opened(f"{viewed}?date=2016-05-01")
    page.evaluate(
        """() => {
          const map = document.getElementById('map');
          globalThis.seen = [];
          new MutationObserver(() => {
            if (seen.at(-1) !== map.dataset.day) seen.push(map.dataset.day);
          }).observe(map, {attributes: true, attributeFilter: ['data-day']});
        }"""
    )
    for speed in ("slow", "normal", "fast"):
        page.select_option("#speed", speed)
        page.locator("#map").focus()
        page.evaluate("seen.length = 0")
        page.keyboard.press("Space")
        assert page.get_attribute("#play", "aria-pressed") == "true"
        while page.evaluate("seen.length") < 4:
            page.wait_for_timeout(50)
        page.click("#play")
        assert page.get_attribute("#play", "aria-pressed") == "false"
        page.wait_for_timeout(700)
        days = np.array(page.evaluate("seen"), "datetime64[D]")
        assert set(np.diff(days).astype(int)) == {1}
        page.wait_for_timeout(700)
        assert page.evaluate("seen.length") == len(days)  # it has stopped


def is_shown(page, row, col):
    """The colour in the middle of a cell, as it is drawn on the canvas of cells."""
    return page.evaluate(
        """([row, col]) => {
          const canvas = document.querySelector('#map .cells');
          const box = canvas.getBoundingClientRect();
          const [x, y] = viewer.pixelOf({row, col});
          const at = [(x - box.left), (y - box.top)].map((n) => Math.floor(n * devicePixelRatio));
          return [...canvas.getContext('2d').getImageData(...at, 1, 1).data];
        }""",
        [row, col],
    )


@each_width
def test_layers_arms_and_what_is_shown_of_them(viewed, width, opened, maps):
    page, of = opened(f"{viewed}?date=2017-06-01", width), maps["multiscale"]
    row, col = np.argwhere((of.quality_flag.sel(time="2017-06-01") == 0).values)[7].tolist()
    colours = {}
    for layer, unit in (
        ("uncertainty", "m³ m⁻³"),
        ("percentile", "%"),
        ("anomaly", "m³ m⁻³"),
        ("distance", ""),
        ("value", "m³ m⁻³"),
    ):
        page.select_option("#layer", layer)
        page.wait_for_selector(f"#map[data-layer={layer}]")
        page.wait_for_timeout(100)
        assert unit in text(page, "legend")
        colours[layer] = is_shown(page, row, col)
    assert len({tuple(colour) for colour in colours.values()}) == 5
    assert colours["value"][3] == 255
    page.click("summary")
    for box in ("#marks", "#sites"):
        page.uncheck(box)
        page.check(box)
    page.fill("#opacity", "40")
    page.wait_for_timeout(200)
    assert is_shown(page, row, col)[3] == pytest.approx(0.4 * 255, abs=2)
    page.fill("#opacity", "100")
    before = pixel(page, 0, 0)
    page.locator("#map").focus()
    page.keyboard.press("+")
    page.wait_for_timeout(600)
    assert pixel(page, 0, 0) != before
    page.click("#fit")
    page.wait_for_timeout(300)
    assert pixel(page, 0, 0) == pytest.approx(before, abs=1)
    page.click("summary")
    page.select_option("#arm", "satellite")
    page.wait_for_selector("#map[data-arm=satellite]")
    assert page.locator("#layer option[value=distance]").count() == 0  # it is not trained on sites


@each_width
def test_missing_and_flagged_cells_look_different(viewed, width, opened, maps):
    of = maps["multiscale"]
    frozen = ((of.quality_flag & 4) > 0).sum(("y", "x")).values
    day = int(frozen.argmax())
    page = opened(f"{viewed}?date={str(of.time.values[day])[:10]}", width)
    flagged = np.argwhere(((of.quality_flag[day] & 4) > 0).values)
    few = flagged[:: max(1, len(flagged) // 20)].tolist()
    hatched = [is_shown(page, row, col) for row, col in few]
    page.click("summary")
    page.uncheck("#marks")
    page.wait_for_timeout(200)
    plain = [is_shown(page, row, col) for row, col in few]
    assert sum(one != two for one, two in zip(hatched, plain, strict=True)) > len(few) / 4
    for row, col in np.argwhere((of.quality_flag[day] & 1 > 0).values)[:5].tolist():
        assert is_shown(page, row, col) == [201, 204, 209, 255]


@each_width
def test_a_site_shows_what_was_predicted_without_it(viewed, width, opened, maps, folder):
    page = opened(viewed, width)
    page.wait_for_selector("#legend-sites:not([hidden])", state="attached")
    points = page.evaluate("viewer.sites")
    assert len(points) == 30
    site = points[3]
    grid = maps["multiscale"]
    row, col = page.evaluate(
        "({lat, lon}) => {const c = viewer.maps.grid.cellOf({lat, lon}); return [c.row, c.col]}",
        site["place"],
    )
    assert abs(float(grid.lat[row, col]) - site["place"]["lat"]) < 0.1
    click(page, row, col)
    page.wait_for_selector("#site:not([hidden])")
    words = text(page, "site")
    assert f"Site {site['name']}, fold {site['fold']}" in words
    assert f"correlation {site['scores']['multiscale']['correlation']:.3f}" in words
    assert "had not seen it" in words
    keys = page.inner_text("#series-keys")
    assert "observed" in keys
    assert "predicted at the site without its own data" in keys
    with page.expect_download() as downloading:
        page.click("#csv")
    header = Path(downloading.value.path()).read_text().splitlines()[3]
    assert header.endswith("satellite_footprint,site_observed,site_held_out")


@each_width
def test_a_link_shows_the_same_again(viewed, width, opened, maps):
    page = opened(f"{viewed}?date=2017-07-04&layer=anomaly&arm=insitu", width)
    hide_sites(page)
    click(page, 30, 20)
    told = [text(page, name) for name in ("value", "interval", "percentile")]
    assert all(told)
    page.click("#link")
    page.wait_for_selector("#copied:has-text('copied')")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    assert {"date=2017-07-04", "layer=anomaly", "arm=insitu"} < set(link.split("?")[1].split("&"))
    page.click("#python")
    page.wait_for_selector("#copied:has-text('Copied.')")
    python = page.evaluate("navigator.clipboard.readText()")
    again = opened(link, width)
    again.wait_for_selector("#series[data-cell='30,20']", state="attached")
    assert [text(again, name) for name in ("value", "interval", "percentile")] == told
    found = {}
    exec(python.replace("print(", "found = ("), found)
    expected = maps["insitu"][TARGET][:, 30, 20].values
    np.testing.assert_array_equal(found["found"][TARGET].to_numpy(), expected)


@each_width
def test_a_cell_is_chosen_by_its_degrees_and_without_a_mouse(viewed, width, opened, maps):
    page, of = opened(viewed, width), maps["multiscale"]
    page.fill("#lat", f"{float(of.lat[5, 7]):.4f}")
    page.fill("#lon", f"{float(of.lon[5, 7]):.4f}")
    page.press("#lon", "Enter")
    page.wait_for_selector("#series[data-cell='5,7']", state="attached")
    page.fill("#lat", "80")
    page.press("#lat", "Enter")
    page.wait_for_selector("#problem:has-text('outside of the maps')")


def test_citation_and_licence_are_in_view(bucket, s3, opened):
    page = opened(f"{s3.endpoint}/{s3.bucket}/demo/index.html")
    assert "Example Group" in text(page, "citation")
    assert "https://doi.org/10.5281/zenodo.1" in text(page, "citation")
    assert text(page, "licence") == "Licence: CC-BY-4.0"
    assert {link.inner_text() for link in page.locator("#pages a").all()} == {
        "report",
        "model card",
    }


@each_width
def test_axe_finds_no_violation(viewed, width, opened, shots):
    page = opened(f"{viewed}?date=2017-07-04", width)
    click(page, 30, 20)
    page.click("summary")
    page.evaluate(AXE.read_text())
    result = page.evaluate("axe.run(document)")
    found = {
        "axe": result["testEngine"]["version"],
        "width": width,
        "passes": len(result["passes"]),
        "incomplete": [each["id"] for each in result["incomplete"]],
        "violations": [
            f"{each['id']}: {node['html']}"
            for each in result["violations"]
            for node in each["nodes"]
        ],
    }
    (shots / f"viewer-axe-{width}.json").write_text(json.dumps(found, indent=1) + "\n")
    assert found["violations"] == []
    assert found["passes"] > 20


@each_width
def test_nothing_is_wider_than_the_screen(viewed, width, opened):
    page = opened(f"{viewed}?date=2017-07-04", width)
    click(page, 30, 20)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_absent_keys_that_are_answered_by_403_are_absent(folder, opened, tmp_path, bucket):
    """Of a server that lets in whoever reads, and refuses whoever asks for what is not there."""
    from pipeline import publish
    from pipeline.progress import SilentProgress

    root = tmp_path / "published"
    publish.publish(Workspace(str(folder)), str(root), SilentProgress())
    viewer.put_beside(str(root))
    with web.serve(root) as site:
        for key in ("footprints.json", r"quality_flag/c/0/0/0"):
            site.fails(key, *[403] * 50)
        page = opened(f"{site.url}/index.html?date=2016-01-03")
        click(page, 30, 20)
        assert "m³ m⁻³" in text(page, "value")
        assert "footprint" not in page.inner_text("#series-keys")
        assert not page.locator("#problem").is_visible()


def test_what_cannot_be_shown_is_told_in_one_line(opened, tmp_path, bucket, s3):
    (tmp_path / "index.html").write_bytes(viewer.built.built_files()["index.html"])
    for key, data in viewer.built.built_files().items():
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(data)
    with web.serve(tmp_path) as site:
        page = opened(f"{site.url}/index.html", ready=False)
        page.wait_for_selector("#problem:has-text('there is no publication here')")


def test_screenshots_for_the_docs(viewed, opened, shots):
    day = "?date=2016-09-22&lat=39.12&lon=-101.35"
    for name, query, width, site in (
        ("viewer", "?date=2016-09-22", 1280, "6"),
        ("viewer-anomaly", f"{day}&layer=anomaly", 1280, None),
        ("viewer-frozen", day.replace("2016-09-22", "2017-01-06"), 1280, None),
        ("viewer-phone", day, 360, None),
    ):
        page = opened(f"{viewed}{query}", width)
        page.wait_for_selector("#legend-sites:not([hidden])", state="attached")
        if site is not None:
            page.select_option("#site-list", site)
        page.wait_for_selector("#series[data-cell]:not([data-cell=''])", state="attached")
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(500)
        image = Image.open(io.BytesIO(page.screenshot(full_page=width < 800)))
        image.convert("RGB").save(shots / f"{name}.png", optimize=True)
        assert image.width == width
