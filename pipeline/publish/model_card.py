"""Write the model card of a release: card.json, and the same as a page, card.md.

It says what the maps show, what they were made from, how good they are where that was tested, and
where they should not be used.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import redact_tree
from pipeline.storage import models, origins, product_facts
from pipeline.storage.maps_schema import QUALITY_MEANINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.recipe import Arm
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


FOOTPRINT_KM = 36
SHOWN_SCORES = ("correlation", "rmse", "ubrmse", "bias", "kge")
SHOWN_OF_ENTRIES = ("license", "doi", "period", "static_period", "region", "time_convention")
DECIMALS = 5


def card_files(
    experiment: Experiment, workspace: Workspace, scored: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield the key and content of card.json and card.md.

    Args:
      experiment: The experiment that was run.
      workspace: The experiment's folder in the workspace.
      scored: Whether the workspace has scores.

    Raises:
      DamagedError: If a model or the summary cannot be read.
    """
    card = redact_tree(describe(experiment, workspace, scored))
    yield "card.json", json.dumps(card, indent=1, ensure_ascii=False).encode()
    yield "card.md", to_markdown(card).encode()


def describe(experiment: Experiment, workspace: Workspace, scored: bool) -> Json:
    """Return the content of the model card; see `card_files`."""
    variable = experiment.table[experiment.target]
    maps = workspace.artefact("maps").manifest() or {}
    root, _ = models.find_models(experiment, workspace)
    trained = models.trained_in(experiment, workspace)
    chain = origins.read_chain(experiment, workspace)
    manifests = (chain.get("cube", {}), workspace.artefact("scores").manifest() or {})
    summary = (files.read_json(workspace.url("summary.json")) or {}) if scored else {}
    return {
        "name": experiment.name,
        "title": experiment.title,
        "predicts": {
            "variable": experiment.target,
            "long_name": variable.long_name,
            "units": variable.units,
            "depth_m": variable.depth_m and [*variable.depth_m],
            "what": "daily means, with the standard deviation of the error and a quality flag",
        },
        "arms": {
            arm: _describe_arm(experiment, trained, root, arm)
            | {"checkpoints": origins.list_members(chain, arm)}
            for arm in experiment.arms
        },
        "recipe": {
            "name": trained and trained.recipe,
            "updates": models.recorded_updates(experiment, workspace),
            "tuned_on": trained and trained.tuned_on,
        },
        "data": {
            name: {key: entry[key] for key in SHOWN_OF_ENTRIES if key in entry}
            for manifest in manifests
            for name, entry in manifest.get("entries", {}).items()
        },
        "catalog": experiment.sources.catalog,
        "training_period": trained and [str(day) for day in trained.train_period],
        "test_period": trained and [str(day) for day in trained.test_period],
        "maps": [
            str(experiment.period[0]),
            maps.get("complete_through", str(experiment.period[1])),
        ],
        "days_with_preliminary_forcing": maps.get("preliminary", []),
        "domain": _describe_domain(experiment),
        "held_out": trained and trained.folds.layout,
        "scores": _describe_scores(summary),
        "limits": _limits(experiment, summary),
        "code_commit": maps.get("git_commit"),
        "made_from": origins.describe_chain(chain),
    }


def _describe_domain(experiment: Experiment) -> Json:
    """Return the edges of the region in degrees, and the grid."""
    box = experiment.domain
    return {
        "west": box.west_degrees,
        "south": box.south_degrees,
        "east": box.east_degrees,
        "north": box.north_degrees,
        "grid": f"EASE-Grid 2.0, {FOOTPRINT_KM / box.refinement:g} km",
    }


def _describe_arm(experiment: Experiment, trained: Experiment | None, root: str, arm: Arm) -> Json:
    """Return what the product of an arm was made from.

    Args:
      experiment: The experiment, which has the inputs of the maps.
      trained: The one that the models were trained in; None if that is not known.
      root: URL of the models.
      arm: The arm.
    """
    facts = product_facts.read_facts(trained or experiment, root, arm)
    return {
        "members": len(facts.seeds),
        "learnt_from": facts.learnt_from() if trained else [],
        "inputs": [*product_facts.read_facts(experiment, root, arm).inputs],
    }


def _describe_scores(summary: Json) -> Json:
    """Return medians over places with 95 % intervals, by what was scored, then by arm or baseline.

    Under `paired` are the differences of the scores at the same places and days.
    """
    scores: Json = {}
    for target, part, n in (
        ("held-out sites" if summary.get("place") == "unseen" else "sites", summary, "n_sites"),
        ("cells whose truth is known", summary.get("truth", {}), "n_cells"),
    ):
        described = {**part.get("arms", {}), **part.get("baselines", {})}
        if not described:
            continue
        rows = {
            name: {
                metric: {"median": _rounded(value), "ci95": _interval(found, metric)}
                for metric, value in found["median"].items()
                if metric in SHOWN_SCORES
            }
            for name, found in described.items()
        }
        scores[target] = {"places": part.get(n), "by_name": rows, "paired": _paired(part)}
    return scores


def _paired(part: Json) -> Json:
    return {
        pair: {
            metric: {
                "median_difference": _rounded(found["median_difference"]),
                "ci95": [_rounded(bound) for bound in found["ci95"]],
            }
            for metric, found in metrics.items()
            if metric in SHOWN_SCORES
        }
        for pair, metrics in part.get("paired", {}).items()
    }


def _interval(found: Json, metric: str) -> list[float | None]:
    return [_rounded(bound) for bound in found.get("ci95", {}).get(metric, (None, None))]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)


def _limits(experiment: Experiment, summary: Json) -> list[str]:
    """Return what a user of the maps must know, each a sentence."""
    sentences = []
    if experiment.planet is not None:
        sentences.append("The data are those of a simulated planet, not of the Earth.")
    if not summary:
        sentences.append(
            "These maps have no scores of their own: their models come from elsewhere."
        )
    elif summary.get("time") == "seen":
        sentences.append("The test period overlaps the training period.")
    if summary.get("place") == "seen":
        sentences.append("No site was held out: the scores are those of fitted sites.")
    if experiment.tuned_on and experiment.planet is None:
        sentences.append(
            f"The recipe was tuned on {experiment.tuned_on}; scores there are not untouched."
        )
    if {*experiment.arms} != {"insitu"} and not experiment.folds.drop_footprints:
        sentences.append("Footprints that contain a held-out site are used in training.")
    if entries := ", ".join(summary.get("statics_of_unknown_period", ())):
        sentences.append(f"The period that the statics of {entries} describe is unknown.")
    flags = "; ".join(f"{bit.value}: {meaning}" for bit, meaning in QUALITY_MEANINGS.items())
    sentences.append(f"quality_flag marks values that are less certain ({flags}).")
    if {*experiment.arms} != {"satellite"}:
        sentences.append("attribute_distance says how unlike a cell is to the sites learnt from.")
    return sentences


def to_markdown(card: Json) -> str:
    """Return the model card as a page in Markdown."""
    predicts, domain = card["predicts"], card["domain"]
    edges = ", ".join(f"{edge} {domain[edge]:g}" for edge in ("west", "south", "east", "north"))
    recipe = card["recipe"]
    updates = f", {recipe['updates']:,} updates a model" if recipe["updates"] else ""
    lines = [
        f"# {card['name']}: {card['title']}",
        "",
        f"Maps of `{predicts['variable']}` ({predicts['long_name']}, {predicts['units']}): "
        f"{predicts['what']}.",
        "",
        f"- **Days**: {card['maps'][0]} to {card['maps'][1]}",
        f"- **Region**: {edges} degrees; {domain['grid']}",
        f"- **Recipe**: {recipe['name'] or 'not known'}{updates}",
        f"- **Trained on** {_span(card['training_period'])}, **tested on** "
        f"{_span(card['test_period'])}: {card['held_out'] or 'not known'}",
        f"- **Code**: commit {card['code_commit'] or 'unknown'}",
        "",
        "## Arms",
        "",
        "| arm | models | learnt from | inputs |",
        "|---|---|---|---|",
    ]
    for arm, about in card["arms"].items():
        learnt, inputs = "; ".join(about["learnt_from"]), ", ".join(about["inputs"])
        lines.append(f"| `{arm}` | {about['members']} | {learnt} | {inputs} |")
    lines += ["", "## Data", "", f"Catalog `{card['catalog']}`.", ""]
    lines += ["| entry | licence | DOI | period |", "|---|---|---|---|"]
    for name, entry in card["data"].items():
        columns = (entry.get(key, "") for key in ("license", "doi", "period"))
        lines.append(f"| {name} | {' | '.join(map(str, columns))} |")
    lines += ["", "## Scores", "", *score_lines(card["scores"])]
    lines += ["## Limits", "", *(f"- {sentence}" for sentence in card["limits"]), ""]
    return "\n".join(lines)


def score_lines(scores: Json) -> list[str]:
    """Return the tables of scores, as `describe` has them, in Markdown."""
    if not scores:
        return ["There are none.", ""]
    lines = []
    for target, part in scores.items():
        lines += [f"Median over {part['places']:,} {target} [95 % interval]:", ""]
        lines += [f"| | {' | '.join(SHOWN_SCORES)} |", f"|---|{'---|' * len(SHOWN_SCORES)}"]
        for name, found in part["by_name"].items():
            cells = [_score_cell(found.get(metric), "median") for metric in SHOWN_SCORES]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
        for pair, found in part["paired"].items():
            cells = [_score_cell(found.get(metric), "median_difference") for metric in SHOWN_SCORES]
            lines.append(f"| difference `{pair}` | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _score_cell(found: Json | None, key: str) -> str:
    if not found or found[key] is None:
        return ""
    low, high = found["ci95"]
    interval = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
    return f"{found[key]:.3g}{interval}"


def _span(period: list[str] | None) -> str:
    return f"{period[0]} to {period[1]}" if period else "days that are not known"
