"""Adapters written by PEFT itself: every delta against its own merge, and what it writes that is refused."""

import contextlib
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.checkpoint import CheckpointPair, open_pair, read_tensor
from dgviz.checkpoint.lora.tensor import LoraStack, LoraTensor
from dgviz.errors import CheckpointError
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.weight import Weight
from tests.checkpoints import tiny_model

DENSE = ["q_proj", "v_proj", "down_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@contextlib.contextmanager
def quiet():
    """Silence what PEFT says about embeddings it saves and heads it unties."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def adapted(directory, family: str, old_names: bool = False, dtype=torch.float64, **config):
    """Save a tiny model, an adapter of it with all it trains changed at random, and their merge; return two paths."""
    model = tiny_model(family).to(dtype)
    model.save_pretrained(directory / "base", save_original_format=old_names)
    generator = torch.Generator().manual_seed(5)
    with quiet():
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "lora_alpha": 6} | config))
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=dtype) / 20)
        wrapped.save_pretrained(directory / "adapter")
        merged = wrapped.merge_and_unload()
    merged.save_pretrained(directory / "merged", save_original_format=old_names)
    return directory / "base", directory / "adapter"


def stored(directory) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def assert_merged(pair: CheckpointPair, directory) -> None:
    """Check every tensor of tuned, and every delta, against PEFT's own merge in float64."""
    before, after = stored(directory / "base"), stored(directory / "merged")
    assert pair.tuned.tensors.keys() == before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {row.name for row in pair.tensors if row.cause != "untouched"} and changed
    for row in pair.tensors:
        torch.testing.assert_close(read_tensor(row.tuned), after[row.name], rtol=0, atol=1e-14)
        if row.name in changed and row.action == "repair":
            indices = range(row.tuned.shape[0]) if isinstance(row.tuned, LoraStack) else [None]
            for index in indices:
                delta = compute_delta(Weight(row, index), "cpu")
                expected = after[row.name] - before[row.name]
                expected = expected if index is None else expected[index]
                torch.testing.assert_close(delta, expected.reshape(delta.shape), rtol=0, atol=1e-14)
                if isinstance(row.tuned, LoraTensor | LoraStack):
                    assert torch.linalg.matrix_rank(delta) <= row.tuned.rank


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama_untied", {"target_modules": DENSE}),
        ("llama_untied", {"target_modules": DENSE, "use_rslora": True}),
        (
            "llama_untied",
            {
                "target_modules": DENSE,
                "rank_pattern": {"q_proj": 2, r".*\.1\.mlp\.down_proj": 7},
                "alpha_pattern": {"layers.0.self_attn.v_proj": 30, "mlp.down_proj": 3},
            },
        ),
        ("llama_untied", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]}),
        ("llama_untied", {"target_modules": ["embed_tokens", "lm_head", "up_proj"]}),
        ("llama_untied", {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"}),
        ("qwen2", {"target_modules": ["q_proj", "up_proj"], "bias": "lora_only", "layers_to_transform": [1]}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
        ("vit", {"target_modules": ["projection", "q_proj", "fc1"]}),
        ("t5", {"target_modules": ["q", "wi"]}),
        ("qwen3_moe", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}),
        (
            "qwen3_moe",
            {"target_modules": [], "target_parameters": EXPERTS, "rank_pattern": {"gate_up_proj": 2}},
        ),
        ("qwen2_moe", {"target_modules": [], "target_parameters": ["0.mlp.experts.down_proj"], "use_rslora": True}),
        ("gpt_oss", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}),  # down_proj is square
        ("llama_untied", {"target_modules": [], "target_parameters": ["mlp.gate_proj.weight"], "alpha_pattern": {}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_every_delta_is_pefts(tmp_path, family, config):
    pair = open_pair(*adapted(tmp_path, family, **config))
    assert_merged(pair, tmp_path)


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_experts_stored_one_by_one(tmp_path, family):
    """PEFT names the fused stack, while base is stored under the names of version 4, expert by expert."""
    pair = open_pair(*adapted(tmp_path, family, old_names=True, target_modules=[], target_parameters=EXPERTS))
    assert len([row for row in pair.tensors if isinstance(row.tuned, LoraTensor)]) == 2 * 4 * 3
    assert_merged(pair, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_exported_adapter_is_the_merged_model(tmp_path, dtype):
    paths = adapted(tmp_path, "qwen3_moe", dtype=dtype, target_modules=["q_proj"], target_parameters=EXPERTS)
    list(iter_export(plan_export(open_pair(*paths), RepairPlan("manual", {"tau": 0.0}), tmp_path / "out"), "cpu"))
    merged = stored(tmp_path / "merged")
    for name, tensor in stored(tmp_path / "out").items():
        assert tensor.dtype == dtype
        # PEFT multiplies in bfloat16 where that is the model's dtype; here it is float32 and one rounding.
        rtol, atol = (0, 1e-6) if dtype == torch.float32 else (0.02, 2e-3)
        torch.testing.assert_close(tensor, merged[name], rtol=rtol, atol=atol)


def test_an_embedding_that_is_written_along_is_bases(tmp_path):
    base, adapter = adapted(tmp_path, "llama_untied", target_modules=["embed_tokens"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    own = next(name for name in tensors if name.endswith("embed_tokens.base_layer.weight"))
    save_file(tensors | {own: tensors[own] + 1}, file)
    with pytest.raises(CheckpointError, match=r"is not base's 'model.embed_tokens.weight', to which the factors"):
        open_pair(base, adapter)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"use_dora": True}, r"use_dora = True \(DoRA\), which is not read: merge it into its base"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa', which changes the base's own weights"),
        ({"init_lora_weights": "olora"}, "'olora', which changes the base's own weights"),
        ({"trainable_token_indices": {"embed_tokens": [1, 2]}}, "trainable tokens"),
        ({"lora_bias": True}, "lora_bias = True"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, config, complaint):
    paths = adapted(tmp_path, "qwen2", target_modules=["q_proj"], dtype=torch.float32, **config)
    with pytest.raises(CheckpointError, match=complaint):
        open_pair(*paths)


@pytest.mark.parametrize("kind", ["LoHaConfig", "IA3Config", "VeraConfig"])
def test_other_methods_are_refused_by_name(tmp_path, kind):
    model = tiny_model("llama_untied")
    model.save_pretrained(tmp_path / "base")
    more = {"feedforward_modules": []} if kind == "IA3Config" else {}
    with quiet():
        wrapped = peft.get_peft_model(model, getattr(peft, kind)(target_modules=["k_proj", "v_proj"], **more))
        wrapped.save_pretrained(tmp_path / "adapter")
    with pytest.raises(
        CheckpointError, match=rf"peft_type '{kind.removesuffix('Config').upper()}', and only LORA ad"
    ):
        open_pair(tmp_path / "base", tmp_path / "adapter")


def test_experts_whose_storage_is_open_are_refused(tmp_path):
    base, adapter = adapted(tmp_path, "gpt_oss", target_modules=[], target_parameters=[EXPERTS[1]])
    assert open_pair(base, adapter).repairable
    tensors = stored(base)
    for name in list(tensors):
        if name.endswith("gate_up_proj"):
            del tensors[name]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"are square, so it is open how they are stored: merge it"):
        open_pair(base, adapter)


def test_factors_that_fit_no_parameter_are_refused(tmp_path):
    base, adapter = adapted(tmp_path, "qwen3_moe", target_modules=[], target_parameters=EXPERTS)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if "layers.0.mlp.experts.lora_A" in name:
            tensors[name] = tensors[name][:, 1:].contiguous()
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"open which factors of 'model.layers.0.mlp.experts' belong to which"):
        open_pair(base, adapter)
