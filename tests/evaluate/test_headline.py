"""The headline names the strongest rival, also where it wins."""

import pytest

from pipeline.evaluate.report import headline

UNIT = "m"


def described(r, rmse):
    return {"median": {"correlation": r, "rmse": rmse}}


def difference(rmse, rmse_ci, r, r_ci):
    return {
        "rmse": {"median_difference": rmse, "ci95": rmse_ci},
        "correlation": {"median_difference": r, "ci95": r_ci},
    }


def summary_of(**paired):
    """A summary of multiscale, insitu and the satellite, with these paired differences."""
    return {
        "place": "unseen",
        "time": "seen",
        "n_sites": 1234,
        "arms": {"multiscale": described(0.83, 0.066), "insitu": described(0.82, 0.072)},
        "baselines": {"footprint": described(0.6, 0.09)},
        "paired": {f"multiscale-{name}": of for name, of in paired.items()},
    }


FAR = difference(-0.02, [-0.03, -0.01], 0.1, [0.05, 0.2])


def told(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("rmse", "r", "verdict"),
    [
        ([-0.004, 0.001], [-0.01, 0.02], "It ties with its strongest rival, in situ only (R"),
        ([-0.004, -0.001], [0.01, 0.02], "It is better than its strongest rival, in situ only (R"),
        ([0.001, 0.004], [-0.02, -0.01], "It loses to its strongest rival, in situ only (R"),
        ([-0.004, -0.001], [-0.02, -0.01], ", it wins in RMSE and loses in R."),
        ([None, None], [None, None], "There are too few regions to tell it from its strongest"),
    ],
)
def test_the_verdict_follows_from_the_intervals(rmse, r, verdict):
    near = difference(-0.0018, rmse, 0.005, r)
    text = told(headline.headline(summary_of(insitu=near, footprint=FAR), UNIT))
    start = "At 1,234 held-out sites, multiscale has R .83 and RMSE .066 m. "
    assert text.startswith(start)
    assert verdict in text
    assert "in situ only (R .82 and RMSE .072 m)" in text


def test_the_rival_is_the_one_with_the_lowest_error_and_another_in_r_is_named_too():
    near = difference(0.003, [0.001, 0.004], 0.09, [0.01, 0.2])
    far = difference(-0.02, [-0.03, -0.01], -0.02, [-0.03, -0.01])
    summary = summary_of(insitu=far, footprint=near)
    assert headline.strongest_rival(summary, "rmse") == "footprint"
    assert headline.strongest_rival(summary, "correlation") == "insitu"
    assert "Against its strongest rival, satellite itself" in told(headline.headline(summary, UNIT))
    detail = told(headline.detail(summary, UNIT))
    assert detail.startswith("Multiscale minus satellite itself: RMSE +.0030 [+.0010, +.0040] m, R")
    assert "in R, the strongest rival is in situ only: R \N{MINUS SIGN}.020 [" in detail


def test_an_arm_alone_has_no_rival():
    summary = summary_of() | {"arms": {"insitu": described(0.8, 0.07)}, "place": "seen"}
    text = told(headline.headline(summary, UNIT))
    assert text == "At 1,234 sites, in situ only has R .80 and RMSE .070 m."
    assert headline.detail(summary, UNIT) == ""
