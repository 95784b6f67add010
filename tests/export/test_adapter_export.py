"""Adapters and factors against a float64 repair made here, as PEFT, transformers or safetensors alone read them."""

import copy
import itertools
import json
import math
import warnings

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dgviz.checkpoint import open_pair
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from dgviz.rmt import law as theory
from tests.checkpoints import model_inputs, planted_update, tiny_model, write_checkpoint

FAMILIES = ("llama_untied", "llama_tied", "qwen2_moe", "qwen2_moe_fused", "gpt2", "bert")
SPIKES = 3
ROUNDING = 1e-7
"""Of weights up to 1 in float32; the updates are a thousand times larger."""


def write_family(directory, family):
    """Save a tiny model by transformers, and one with noise and none to `SPIKES` directions more in every matrix."""
    model = tiny_model(family)
    model.save_pretrained(directory / "base", save_original_format=not family.endswith("_fused"))
    base = load_file(directory / "base" / "model.safetensors")
    config = json.loads((directory / "base" / "config.json").read_text())
    tuned = {}
    for number, (name, tensor) in enumerate(base.items()):
        entries = tensor if tensor.dim() == 3 else [tensor]
        updated = [
            planted_update({"entry": entry}, seed=10 * number + place, rank=(number + place) % (SPIKES + 1))["entry"]
            for place, entry in enumerate(entries)
        ]
        tuned[name] = torch.stack(updated) if tensor.dim() == 3 else updated[0]
    write_checkpoint(directory / "tuned", tuned, config)
    return base, tuned, config


def repaired_update(base: torch.Tensor, tuned: torch.Tensor) -> torch.Tensor:
    """Return what DG-Hard keeps of the update of a matrix or of every entry of a stack, by a float64 SVD."""
    left, s, right = torch.linalg.svd(tuned.double() - base.double(), full_matrices=False)
    short, long = sorted(base.shape[-2:])
    beta = short / long
    gavish = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    tau = gavish / theory.mp_median_sv(beta) * torch.quantile(s, 0.5, dim=-1, keepdim=True)
    return (left * torch.where(s > tau, s, 0.0)[..., None, :]) @ right


def is_repaired(name: str, tensor: torch.Tensor) -> bool:
    """Return whether a tensor of these families is a matrix, or a stack of them, of 1024 entries."""
    return tensor.dim() >= 2 and tensor.numel() >= 1024 and "position_ids" not in name


def reference_update(base: dict, tuned: dict) -> dict[str, torch.Tensor]:
    """Return the float64 update of every tensor that is repaired."""
    return {name: repaired_update(base[name], tuned[name]) for name in base if is_repaired(name, base[name])}


def export(directory, output: str, plan: RepairPlan | None = None, **options) -> dict:
    """Write one format of the pair below a directory; return its report."""
    pair = open_pair(directory / "base", directory / "tuned")
    *_, result = iter_export(plan_export(pair, plan or RepairPlan(), directory / output, output, **options), "cpu")
    return result.report


def load(family: str, directory, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Load a checkpoint with transformers, where every parameter must be found."""
    model, info = type(tiny_model(family)).from_pretrained(directory, dtype=dtype, output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}
    return model.eval()


def adapted(model: torch.nn.Module, directory):
    """Put the adapter on base as a user would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for an old name
        for known in (
            "Model has `tie_word_embeddings=True`",
            "fan_in_fan_out is set to ",
            "The following .*_pattern keys .*expert",
        ):
            warnings.filterwarnings("ignore", message=known)  # of PEFT, which then does the right thing
        return peft.PeftModel.from_pretrained(model, directory / "lora").eval()


def untied(model: torch.nn.Module) -> torch.nn.Module:
    """Give the head weights of its own, as PEFT asks for before a merge."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    return model


def logits(family: str, model) -> torch.Tensor:
    with torch.no_grad():
        return model(**model_inputs(family)).logits


@pytest.fixture(scope="module", params=FAMILIES)
def written(request, tmp_path_factory):
    """Return family, directory, report, and base and reference as transformers loads them in float64."""
    family, directory = request.param, tmp_path_factory.mktemp(request.param)
    base, tuned, config = write_family(directory, family)
    update = reference_update(base, tuned)
    reference = {name: tensor.double() + update.get(name, 0.0) for name, tensor in base.items()}
    write_checkpoint(directory / "reference", reference, config)
    report = export(directory, "lora", base_name="org/base")
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert changed - update.keys() == report["left_at_base"].keys()
    assert report["tensors"].keys() == update.keys()
    for name, row in report["tensors"].items():
        assert row["written"] == ("factors" if update[name].any() else "nothing"), name
    return (
        family,
        directory,
        report,
        load(family, directory / "base", torch.float64),
        load(family, directory / "reference", torch.float64),
    )


@pytest.mark.slow
def test_every_weight_is_base_plus_the_float64_repair(written):
    """PEFT's own merge against an SVD made here: no name, order or layout of the writer is used."""
    family, directory, _, base, reference = written
    merged = adapted(untied(load(family, directory / "base")), directory).merge_and_unload()
    merged, before, after = (
        dict(model.named_parameters(remove_duplicate=False)) for model in (merged, base, reference)
    )
    assert merged.keys() == before.keys() == after.keys()
    moved = 0
    for name, tensor in merged.items():
        expected = after[name] - before[name]
        torch.testing.assert_close(tensor.double() - before[name], expected, rtol=0, atol=ROUNDING, msg=name)
        moved += bool(expected.abs().max() > 1000 * ROUNDING)
    assert moved >= len(FAMILIES)


def test_base_with_the_adapter_computes_what_the_repaired_weights_compute(written):
    family, directory, _, base, reference = written
    expected, before = (logits(family, copy.deepcopy(model).float()) for model in (reference, base))
    found = logits(family, adapted(load(family, directory / "base"), directory))
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    assert (expected - before).abs().max() > 1e-3


def test_loaders_that_know_one_alpha_and_no_patterns_scale_right(written):
    """llama.cpp divides alpha by the rank that a module's own A has, vLLM by the config's r."""
    family, directory, report, base, reference = written
    config = json.loads((directory / "lora" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] > 0 and not config["rank_pattern"] and not config["alpha_pattern"]
    assert f"rank {config['r']}" in report["loading"] and "--max-lora-rank 8" in report["loading"]
    before, after = base.state_dict(), reference.state_dict()
    factors = load_file(directory / "lora" / "adapter_model.safetensors")
    plain = 0
    for name, first in factors.items():
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") + ".weight"
        if module not in before or first.shape[1] != before[module].shape[-1] or family == "gpt2":
            continue  # B, and what is stored input first or as a stack
        second = factors[name.replace("lora_A", "lora_B")]
        assert first.shape[0] == config["r"]
        update = config["lora_alpha"] / first.shape[0] * second.double() @ first.double()
        torch.testing.assert_close(update, after[module] - before[module], rtol=0, atol=ROUNDING)
        plain += 1
    assert plain >= 4 or family == "gpt2"


def test_factors_rebuild_the_repair_from_the_file_alone(tmp_path):
    """The file's own words say how: shapes and ranks in its header, left times right added to base."""
    base, tuned, _ = write_family(tmp_path, "qwen2_moe_fused")
    report = export(tmp_path, "factors")
    with safe_open(tmp_path / "factors" / "factors.safetensors", "pt") as file:
        note = json.loads(file.metadata()["dgviz"])
        factors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    update = reference_update(base, tuned)
    assert note["tensors"].keys() == update.keys()
    used = 0
    for name, known in note["tensors"].items():
        stacked = isinstance(known["rank"], list)
        rows = report["tensors"][name]["matrices"]
        assert (known["rank"] if stacked else [known["rank"]]) == [row["factor_rank"] for row in rows]
        rebuilt = torch.zeros(known["shape"], dtype=torch.float64)
        for entry, rank in enumerate(known["rank"]) if stacked else [(None, known["rank"])]:
            key = f"{name}.{entry}" if stacked else name
            assert (f"{key}.left" in factors) == (f"{key}.right" in factors) == (rank > 0)
            if rank:
                left, right = factors[f"{key}.left"], factors[f"{key}.right"]
                assert left.dtype == right.dtype == torch.float32 and left.shape[1] == right.shape[0] == rank
                (rebuilt if entry is None else rebuilt[entry]).copy_(left.double() @ right.double())
                used += 2
        torch.testing.assert_close(rebuilt, update[name], rtol=0, atol=ROUNDING, msg=name)
    assert used == len(factors)
    ranks = [known["rank"] for known in note["tensors"].values() if isinstance(known["rank"], list)]
    assert {0, SPIKES} <= set(itertools.chain(*ranks)) and len(ranks) == 4
