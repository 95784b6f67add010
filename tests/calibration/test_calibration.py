"""A calibration of a few steps end to end, that goes on where it was stopped, and what scores are worth."""

import json
from pathlib import Path

import pytest
from filelock import FileLock

from dgviz.calibration import RUNS, fits, iter_calibration, read_results, write_table
from dgviz.calibration.recipes import ADAPTERS
from dgviz.cli import main
from dgviz.errors import DgvizError
from dgviz.forecast import read_pairs
from dgviz.forecast.fitted import read_fits
from dgviz.repair.methods import METHODS

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


@pytest.mark.soak
def test_methods_are_measured_on_what_lies_there(folder, capsys):
    command = ["calibrate", str(folder), "--methods", "--pairs", f"^{ADAPTER.name}$", "--json"]
    assert main(command) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["pairs"] == 1 and len(values["methods"]) == len(METHODS)
    (result,) = read_results(folder, kind="methods")
    assert result["tried"] > len(METHODS) and result["methods"].keys() == METHODS.keys()
    assert {row["label"] for row in result["methods"]["dg_hard"].values()} <= {"", "dg_hard:scale=0"}  # the identity
    before = (folder / "methods" / f"{ADAPTER.name}.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (folder / "methods" / f"{ADAPTER.name}.json").stat().st_mtime_ns == before
    assert main(["calibrate", str(folder), "--methods", "--pairs", "vit-1"]) == 2
    assert "holds none of these pairs" in capsys.readouterr().err


def test_the_command_prints_the_table(folder, capsys):
    assert main(["calibrate", str(folder), "--pairs", f"^{ADAPTER.name}$", "--steps", "1", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["pairs"] == 1 and values["table"].endswith("table.json")
    assert main(["calibrate", str(folder), "--pairs", f"^{ADAPTER.name}$", "--steps", "1"]) == 0
    assert f"{ADAPTER.name} (left out)" in capsys.readouterr().out
    assert main(["calibrate", str(folder), "--pairs", "no such pair"]) == 2
    assert "no pair matches" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_a_fit_is_judged_once(folder, monkeypatch, capsys):
    for name, value in {"SAMPLES": 8, "STEPS": 2, "ALPHAS": (0.5, 1.0)}.items():
        monkeypatch.setattr(fits, name, value)
    command = ["calibrate", str(folder), "--pairs", f"^{ADAPTER.name}$", "--steps", "1", "--fits", "1", "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    found = told["fits"]
    (base,) = read_fits(Path(told["table"]))
    assert (base.base, base.layers, base.pairs, base.seeds) == (found[0]["base"], 2, 1, 1)
    assert [(row["name"], row["seed"], row["split"]) for row in found] == [
        (ADAPTER.name, 0, split) for split in (False, True)
    ]
    assert [row["keep"] for row in found[0]["rows"]] == list(fits.KEEPS) and len(found[0]["samples"]) == 64
    before = {path: path.stat().st_mtime_ns for path in (folder / "fits").iterdir()}
    assert main(command) == 0 and json.loads(capsys.readouterr().out)["fits"] == found
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main([*command, "--workers", "2"]) == 2 and "one after the other" in capsys.readouterr().err
