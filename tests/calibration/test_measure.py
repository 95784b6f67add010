"""What a calibration is made from, and what its scores are worth."""

import numpy as np
import pytest

from dgviz.calibration import RUNS
from dgviz.calibration.corpus import CIPHER, CODE, PROSE, read_text
from dgviz.calibration.fits import ALPHAS as FIT_ALPHAS
from dgviz.calibration.fits import KEEPS, METRICS, compare, summarise_fits
from dgviz.calibration.measure import CONTROLS, summarise
from dgviz.calibration.recipes import ALPHAS


def test_the_plan_of_pairs_is_what_a_forecast_needs():
    assert len(RUNS) >= 30 and len({run.family for run in RUNS}) >= 4 and len({run.seed for run in RUNS}) == 2
    assert len({run.name for run in RUNS}) == len(RUNS)


@pytest.mark.parametrize("kind", [CODE, PROSE, CIPHER])
def test_held_out_text_is_not_trained_on(kind):
    text = read_text(kind)
    train, held_out = text.train.tobytes(), text.held_out.tobytes()
    pieces = text.sequences(20, 96)
    assert pieces.shape == (20, 96) and bytes(pieces[3].tolist()) in held_out
    assert sum(bytes(piece.tolist()) in train for piece in pieces) <= 1  # texts repeat themselves here and there
    assert len(text.sha256) == 64


def made_items(n=400, seed=0):
    """Examples of which base solves nearly all on its own side, tuned few, and averages those between."""
    draws = np.random.default_rng(seed)
    hard = {side: draws.uniform(size=n) for side in ("base", "target")}

    def items(own, target):
        return {"base": (hard["base"] < own) * 1.0, "target": (hard["target"] < target) * 1.0}

    found = {"base": items(0.9, 0.1), "tuned": items(0.5, 0.9), "dg_hard": items(0.6, 0.8)}
    found |= {name: items(0.7, 0.8) for name in CONTROLS}
    return found | {f"wise_ft {a:g}": items(0.9 - 0.4 * a, 0.1 + 0.8 * a**0.25) for a in ALPHAS}


def test_scores_become_healing_and_target_kept_with_errors():
    found = summarise(made_items())
    healed, kept = found["dg_hard"]["healed"], found["dg_hard"]["target_kept"]
    assert healed["value"] == pytest.approx(25, abs=6) and kept["value"] == pytest.approx(87.5, abs=4)
    assert 1 < healed["stderr"] < 8
    chosen = found["wise_ft"]
    curve = {row["alpha"]: row for row in found["wise_ft_curve"]}[chosen["alpha"]]
    assert chosen["healed"] == pytest.approx(curve["healed"], abs=8)
    assert chosen["target_kept"]["value"] >= kept["value"]
    assert chosen["ahead"]["value"] == pytest.approx(chosen["healed"]["value"] - healed["value"], abs=1e-2)
    assert found["norm_matched"]["ahead"]["value"] == pytest.approx(25, abs=8)


def test_the_error_is_that_of_new_examples():
    values = [summarise(made_items(seed=seed))["dg_hard"]["healed"] for seed in range(20)]
    spread = np.std([value["value"] for value in values])
    assert np.mean([value["stderr"] for value in values]) == pytest.approx(spread, rel=0.4)


def test_without_damage_there_is_no_healing():
    items = made_items()
    items["tuned"] = {**items["tuned"], "base": items["base"]["base"]}
    found = summarise(items)
    assert found["damage"]["value"] == 0 and found["dg_hard"]["healed"]["value"] is None


def test_fits_are_ahead_by_what_they_heal_above_averaging_at_the_same_target():
    draws = np.random.default_rng(1)
    hard = {side: draws.uniform(size=(1, 2000)) for side in ("base", "target")}

    def scores(own, target):
        return {"base": (hard["base"] < own) * 1.0, "target": (hard["target"] < target) * 1.0}

    curve = {alpha: scores(0.9 - 0.4 * alpha, 0.1 + 0.8 * alpha) for alpha in (0.0, *FIT_ALPHAS)}
    found = compare(curve, {"same": scores(0.9 - 0.4 * 0.75, 0.1 + 0.8 * 0.75), "better": scores(0.75, 0.7)})
    assert found["damage"]["value"] == pytest.approx(40, abs=4)
    assert found["same"]["ahead"]["value"] == pytest.approx(0, abs=0.5)
    assert found["better"]["target_kept"]["value"] == pytest.approx(75, abs=2)
    assert found["better"]["ahead"]["value"] == pytest.approx(37.5, abs=4)
    assert 0.5 < found["better"]["ahead"]["stderr"] < 5


def test_a_base_is_one_measurement_of_the_fit():
    def result(base, name, seed, ahead):
        fit = {"ahead": {"value": ahead}, "target_kept": {"value": 94.0}}
        rows = [{metric: {"fit": fit} for metric in METRICS} for _ in KEEPS]
        return {"base": base, "name": name, "seed": seed, "split": False, "rows": rows}

    many = [result("a", f"a-{n}", seed, 1.0) for n in range(3) for seed in range(2)]
    row = summarise_fits([*many, result("b", "b-0", 0, -2.0), result("b", "b-1", 0, 8.0)])[0]
    assert row["bases"] == {"a": 1.0, "b": 3.0} and row["mean"] == 2 and row["stderr"] == pytest.approx(1)
    assert (row["better"], row["pairs"], row["target_kept"]) == (4, 5, 94.0)
