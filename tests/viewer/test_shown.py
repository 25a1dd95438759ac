"""What `view` makes of an experiment: what a release of it would have."""

from __future__ import annotations

import json

from pipeline.publish import content
from pipeline.viewer import shown


def test_an_experiment_is_shown_with_the_series_that_a_release_would_have(world):
    found = shown.find_shown(world.workspace.root, world.workspace)
    try:
        made = {item.key: item for item in content.collect(world.workspace).items}
        keys = [key for key in made if key.startswith(("sites", "footprints"))]
        assert {"sites.geojson", "footprints.json"} < {*keys}
        for key in keys:
            assert found.find(f"experiment/{key}").data == made[key].data
        assert found.find("experiment/sites/9999.json") is None
        there = found.find("experiment/maps/insitu.zarr/zarr.json")
        assert there.url == made["maps/insitu.zarr/zarr.json"].source
        ours, theirs = (
            json.loads(each.data)
            for each in (found.find("experiment/collection.json"), made["collection.json"])
        )
        for same in ("links", "license", "sci:citation", "title"):
            assert ours[same] == theirs[same]
        assert {*ours["assets"]} == {"report", "sites"}
    finally:
        found.close()
