"""Logits of a loaded output against a model built in memory: equal where all is right, and not where anything is."""

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.errors import ExportFailedError
from dgviz.export import plan_export
from dgviz.export.logits import compare_logits, expect_logits, logits_words
from dgviz.export.reload import LogitsCheck, find_model_class
from dgviz.export.verify import verify_load
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import write_tiny_pair

FAMILIES = ("llama_tied", "gpt2", "mixtral", "vit", "clip", "whisper", "t5")


def write_output(folder, family, **options):
    pair = open_pair(*write_tiny_pair(folder, family))
    plan = plan_export(pair, RepairPlan("fixed_rank", {"rank": 3}, **options), folder / "out")
    list(iter_export(plan, "cpu"))
    return plan


def compared(plan):
    return compare_logits(plan, plan.out, find_model_class(plan.out)[0], "cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_output_computes_what_the_plan_says(tmp_path, family):
    outcome = compared(write_output(tmp_path, family))
    assert outcome["difference"] <= 1e-6 * outcome["largest"] and outcome["largest"] > 0
    assert "largest difference" in logits_words(outcome)


def scaled(tensors):
    tensors["model.layers.0.mlp.up_proj.weight"] *= 1.5


def turned(tensors):
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name].T.contiguous()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", [scaled, turned])
def test_a_wrong_weight_shows(tmp_path, damage):
    plan = write_output(tmp_path, "llama_untied")
    tensors = load_file(plan.out / "model.safetensors")
    damage(tensors)
    save_file(tensors, plan.out / "model.safetensors", metadata={"format": "pt"})
    outcome = compared(plan)
    assert outcome["difference"] > outcome["limit"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_config_is_refused_in_a_process_of_its_own(tmp_path):
    """The config of the output is what a loader reads, and the inputs' what the model in memory is made of."""
    plan = write_output(tmp_path, "llama_untied")
    config = json.loads((plan.out / "config.json").read_bytes())
    checked = dataclasses.replace(plan, check_logits=True)
    with pytest.raises(ExportFailedError, match="has other logits than planned: as of a model built in memory"):
        verify_load(checked, json.dumps(config | {"rms_norm_eps": 0.5}).encode(), None)


def test_memory_decides_unless_it_is_asked_for(tmp_path, monkeypatch, capsys):
    base, tuned = write_tiny_pair(tmp_path, "llama_untied")
    memory = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert main(["repair", str(base), str(tuned), str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verified"]["logits"].startswith("not compared: 0.0 GB needed")
    assert "* logits: not compared\n" in (tmp_path / "out" / "README.md").read_text()
    assert "checking_seconds" not in (tmp_path / "out" / "dgviz.json").read_text()


@pytest.mark.filterwarnings("ignore")
def test_halves_are_compared_too(tmp_path):
    outcome = compared(write_output(tmp_path, "qwen2", dtype="bfloat16"))
    assert outcome["difference"] <= outcome["limit"] < torch.inf


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("repair", "early"),
    [
        (RepairPlan(method="wise_ft"), True),
        (RepairPlan(method="ties"), True),
        (RepairPlan("fixed_rank", {"rank": 3}), False),
        (RepairPlan(method="norm_matched_global"), False),
        (RepairPlan(method="base_damping"), False),
    ],
)
def test_logits_are_expected_early_unless_matrices_are_decomposed_for_it(tmp_path, repair, early):
    """They are those of the inputs as they were then: nothing of the output has been written."""
    pair = open_pair(*write_tiny_pair(tmp_path, "llama_untied"))
    plan = plan_export(pair, repair, tmp_path / "out")
    folder = tmp_path / "check"
    folder.mkdir()
    (folder / "plan").write_bytes(pickle.dumps(plan))
    (folder / "config.json").write_bytes((pair.tuned.path / "config.json").read_bytes())
    check = LogitsCheck(folder, folder / "plan", "cpu")
    check.expect()
    assert (check._expected is not None) == early
    list(iter_export(plan, "cpu"))
    (folder / "model.safetensors").symlink_to(plan.out / "model.safetensors")
    assert check.run({})["logits"]["difference"] == 0
    tensors = load_file(pair.tuned.path / "model.safetensors")
    scaled(tensors)
    save_file(tensors, pair.tuned.path / "model.safetensors", metadata={"format": "pt"})
    if early:
        assert check.run({})["logits"]["difference"] == 0


@pytest.mark.filterwarnings("ignore")
def test_logits_expected_in_another_dtype_are_made_anew(tmp_path):
    plan = write_output(tmp_path, "qwen2", dtype="bfloat16")
    kind, _ = find_model_class(plan.out)
    early = expect_logits(plan, kind, torch.float32, "cpu")
    outcome = compare_logits(plan, plan.out, kind, "cpu", early)
    assert outcome == compared(plan)
    wrong = dataclasses.replace(early, dtype=torch.bfloat16, logits=early.logits + 1)
    assert compare_logits(plan, plan.out, kind, "cpu", wrong)["difference"] > 0.9
