"""The model card as the hub reads it, its command run again, and what a load by transformers finds or skips."""

import dataclasses
import json
import re
import shlex
import shutil
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.errors import ExportFailedError
from dgviz.export import plan_export, reload
from dgviz.export.loading import load_with_transformers
from dgviz.export.plan import RUN
from dgviz.export.verify import verify_load
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import write_pair, write_tiny_pair

LICENSE = "---\nlicense: other\nlicense_name: house\nlicense_link: LICENSE\ntags:\n- theirs\n---\n# Theirs\n"


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Return a folder with base and tuned whose config names no model."""
    folder = tmp_path_factory.mktemp("card")
    for path in write_pair(folder, config={"name": "synthetic"}):
        (path / "README.md").write_text(LICENSE if path.name == "tuned" else "---\nlicense: mit\n---\n")
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Return a folder with a tiny model as base and tuned; only base names a licence, and tuned's card is no YAML."""
    folder = tmp_path_factory.mktemp("llama")
    base, tuned = write_tiny_pair(folder, "llama_untied")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    (tuned / "README.md").write_text("---\nlicense: [\n---\n")
    return folder


def repair(capsys, *arguments) -> dict:
    """Run the command in this process; return its report."""
    assert main(["repair", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def file_bytes(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != RUN]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def card_data(folder) -> dict:
    return ModelCard.load(folder / "README.md").data.to_dict()


def test_the_header_of_a_whole_checkpoint(capsys, synthetic, tmp_path):
    paths = (synthetic / "base", synthetic / "tuned")
    repair(capsys, *paths, tmp_path / "out", "--base-name", "org/base")
    assert card_data(tmp_path / "out") == {
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": "other",
        "license_name": "house",
        "license_link": "LICENSE",
        "tags": ["theirs", "dgviz", "svd", "weight-repair"],
    }
    repair(capsys, *paths, tmp_path / "unnamed")
    assert "base_model" not in card_data(tmp_path / "unnamed")


def test_the_header_of_an_adapter_and_of_factors(capsys, llama, tmp_path):
    paths, rule = (llama / "base", llama / "tuned"), ("--rule", "fixed_rank", "--base-name", "org/base")
    report = repair(capsys, *paths, tmp_path / "lora", "--format", "lora", *rule, "--exclude", "lm_head")
    assert card_data(tmp_path / "lora") == {
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "license": "apache-2.0",
        "tags": ["dgviz", "svd", "weight-repair", "lora"],
    }
    text = (tmp_path / "lora" / "README.md").read_text()
    changed = sum(row["written"] == "factors" for row in report["tensors"].values())
    assert f"The adapter changes {changed} tensors of base." in text
    assert f"{len(report['left_at_base'])} tensors that differ in tuned stay as in base" in text
    assert all(f"| `{name}` | {why} |" in text for name, why in report["left_at_base"].items())
    assert {"lm_head.weight", "model.norm.weight"} <= report["left_at_base"].keys()
    assert "by a path of this machine" not in text and str(llama) not in text
    repair(capsys, *paths, tmp_path / "factors", "--format", "factors", *rule)
    data = card_data(tmp_path / "factors")
    assert data["base_model"] == "org/base" and "base_model_relation" not in data and "library_name" not in data


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--rule", "manual", "--rule-param", "tau=0.0312345678901", "--dtype", "float32"),
        (
            "--rule",
            "known_sigma",
            "--rule-param",
            "sigma=1e-3",
            "--exclude",
            r"(conv|pos)\b.*",
            "--format",
            "factors",
        ),
        ("--shrinker", "frobenius", "--include", "layers|embed"),
        ("--method", "rank_r", "--param", "rank=2"),
    ],
)
def test_the_command_of_the_card_makes_the_same_bytes(capsys, synthetic, tmp_path, monkeypatch, options):
    monkeypatch.chdir(synthetic)
    repair(capsys, "base", "tuned", tmp_path / "out", *options)
    text = (tmp_path / "out" / "README.md").read_text()
    python, module, name, *command = shlex.split(re.search(r"```\n(.*)\n```", text)[1])
    assert (python, module, name) == ("python", "-m", "dgviz") and command.count("OUT") == 1
    assert main([str(tmp_path / "again") if word == "OUT" else word for word in command]) == 0
    assert file_bytes(tmp_path / "again") == file_bytes(tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "there is no config.json"),
        ({"name": "synthetic"}, "config.json names no model_type"),
    ],
)
def test_what_was_not_checked_is_said(capsys, tmp_path, config, reason):
    base, tuned = write_pair(tmp_path, config=config)
    report = repair(capsys, base, tuned, tmp_path / "out")
    assert report["verified"]["transformers"] == {"skipped": reason}
    assert json.loads((tmp_path / "out" / "dgviz.json").read_text())["verified"] == report["verified"]
    assert f"* transformers: not checked: {reason}\n" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"auto_map": {"AutoModel": "evil.Model"}, "model_type": "my_own"},
            "the model brings its own code (auto_map), which is not run",
        ),
        ({"model_type": "no_such_model"}, "knows no model_type 'no_such_model'"),
        ({"num_attention_heads": 0}, "transformers cannot build this model (ZeroDivisionError"),
    ],
)
def test_a_model_that_is_not_loaded_says_why(llama, tmp_path, change, reason):
    config = json.loads((llama / "tuned" / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(load_file(llama / "tuned" / "model.safetensors"), tmp_path / "model.safetensors")
    outcome = reload.load(tmp_path)
    assert outcome.keys() == {"skipped"} and reason in outcome["skipped"]


NORM, QUERY = "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"
DAMAGE = {
    "missing": (lambda tensors: tensors.pop(QUERY), {"missing": [QUERY]}),
    "renamed": (
        lambda tensors: tensors.update({"model.layers.1.q.weight": tensors.pop(QUERY)}),
        {"missing": [QUERY], "unexpected": ["model.layers.1.q.weight"]},
    ),
    "another shape": (lambda tensors: tensors.update({NORM: torch.ones(7)}), {"mismatched": [NORM]}),
    "none": (lambda tensors: None, {}),
}


@pytest.fixture(params=DAMAGE)
def damaged(request, llama, tmp_path):
    """Return a folder with tuned, damaged, and what transformers must find."""
    damage, found = DAMAGE[request.param]
    tensors = load_file(llama / "tuned" / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((llama / "tuned" / "config.json").read_bytes())
    return tmp_path, {"missing": [], "unexpected": [], "mismatched": [], **found}


def test_a_load_by_transformers_finds_every_wrong_key(damaged, llama):
    folder, found = damaged
    assert reload.load(folder) == {"class": "LlamaForCausalLM", **found}
    outcome = reload.compare(folder, llama / "tuned")
    assert {kind: outcome[kind] for kind in found} == found and not outcome.get("as_in_tuned")
    outcome = reload.compare(folder, folder)  # what tuned itself lacks is reported, and said to be as there
    assert {kind: outcome[kind] for kind in found} == found
    every = set().union(*found.values())
    assert set(outcome.get("as_in_tuned", [])) == every
    words = reload.load_words(outcome)
    assert all(f"{len(keys)} {kind}" in words for kind, keys in found.items()) or not every
    assert words.endswith("All of these keys are as in tuned." if every else "or mismatched keys")


def test_what_tuned_lacks_itself_is_told_and_no_fault_of_the_output(capsys, llama, tmp_path):
    for side in ("base", "tuned"):
        shutil.copytree(llama / side, tmp_path / side)
        tensors = load_file(llama / side / "model.safetensors")
        del tensors[NORM]
        tensors["model.extra.weight"] = torch.ones(3)
        save_file(tensors, tmp_path / side / "model.safetensors", metadata={"format": "pt"})
    assert main(["repair", *(str(tmp_path / name) for name in ("base", "tuned", "out"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = "loaded as LlamaForCausalLM with 1 missing, 1 unexpected, 0 mismatched keys"
    assert lines[1].startswith(f"transformers: {said}") and NORM in lines[1] and "random values" in lines[1]
    assert lines[1].endswith("All of these keys are as in tuned.")
    assert lines[2] == "logits: not compared: 1 keys are missing or mismatched and would be random"
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"* {lines[1]}" in text and f"* {lines[2]}" in text


@pytest.mark.soak
def test_a_process_of_its_own_finds_every_wrong_key_too(llama, tmp_path, monkeypatch):
    """As when an export is made from the command line, where nobody has imported transformers."""
    tensors = load_file(llama / "tuned" / "model.safetensors")
    for name in ("renamed", "another shape"):
        DAMAGE[name][0](tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = (llama / "tuned" / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "transformers")
        found = load_with_transformers(tmp_path, llama / "tuned")
    assert found == {
        "class": "LlamaForCausalLM",
        "missing": [QUERY],
        "unexpected": ["model.layers.1.q.weight"],
        "mismatched": [NORM],
        "as_in_tuned": [],
    }
    plan = plan_export(open_pair(llama / "base", llama / "tuned"), RepairPlan(), tmp_path / "out")
    plan = dataclasses.replace(plan, out=tmp_path)  # as if it had been written there
    with pytest.raises(ExportFailedError, match=f"missing keys: {QUERY} .1 in all.; do not use the output"):
        verify_load(plan, config, None)
