"""A calibration of a few steps end to end, that goes on where it was stopped, and what scores are worth."""

import json

import numpy as np
import pytest
from filelock import FileLock

from dgviz.calibration import RUNS, iter_calibration, read_results, write_table
from dgviz.calibration.corpus import CODE, PROSE, read_text
from dgviz.calibration.measure import CONTROLS, summarise
from dgviz.calibration.recipes import ADAPTERS, ALPHAS
from dgviz.cli import main
from dgviz.errors import DgvizError
from dgviz.forecast import read_pairs

ADAPTER = next(run for run in RUNS if run.name == "gpt2-0-lora")

pytestmark = pytest.mark.slow  # a process of its own trains, exports and loads with transformers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A calibration of one pair and one step."""
    directory = tmp_path_factory.mktemp("calibration")
    assert [found["name"] for found in iter_calibration(directory, [ADAPTER], steps=1, alphas=(0.5,))] == [
        "gpt2-0-lora"
    ]
    return directory


def test_a_pair_is_trained_repaired_scored_and_in_the_table(folder):
    (result,) = read_results(folder)
    assert result["family"] == ADAPTER.family == ADAPTERS and result["dropped"] == pytest.approx(0, abs=1e-6)
    assert result["parameters"] > 100_000 and min(result["largest"]) >= 64
    assert [row["alpha"] for row in result["wise_ft_curve"]] == [0.5]
    scores = result["scores"]["base"]
    assert scores["dg_hard"] == scores["tuned"] != scores["base"]  # the identity on an update of low rank
    assert "sha256" in result["data"]
    assert [pair.name for pair in read_pairs(write_table(folder))] == [ADAPTER.name]
    for side in ("base", "tuned"):
        assert (folder / "checkpoints" / ADAPTER.name / side / "model.safetensors").is_file()


def test_what_is_done_is_not_done_again(folder):
    known = read_results(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("[bcp]*/*/*.safetensors")}
    assert list(iter_calibration(folder, [ADAPTER], steps=1)) == known
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_need_another_folder(folder):
    with pytest.raises(DgvizError, match="other recipes or steps"):
        next(iter_calibration(folder, [ADAPTER], steps=3))


def test_one_folder_is_written_by_one_calibration(folder):
    with FileLock(folder / ".lock"), pytest.raises(DgvizError, match="another calibration"):
        next(iter_calibration(folder, [ADAPTER], steps=1))


def test_the_command_prints_the_table(folder, capsys):
    assert main(["calibrate", str(folder), "--pairs", f"^{ADAPTER.name}$", "--steps", "1", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["pairs"] == 1 and values["table"].endswith("table.json")
    assert main(["calibrate", str(folder), "--pairs", f"^{ADAPTER.name}$", "--steps", "1"]) == 0
    assert f"{ADAPTER.name} (left out)" in capsys.readouterr().out
    assert main(["calibrate", str(folder), "--pairs", "no such pair"]) == 2
    assert "no pair matches" in capsys.readouterr().err


def test_the_plan_of_pairs_is_what_a_forecast_needs():
    assert len(RUNS) >= 30 and len({run.family for run in RUNS}) >= 4 and len({run.seed for run in RUNS}) == 2
    assert len({run.name for run in RUNS}) == len(RUNS)


@pytest.mark.parametrize("kind", [CODE, PROSE])
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
