"""PEFT adapters as the tuned side: read, paired, looked at and exported as base plus scaling * B @ A."""

import json
import pickle
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.checkpoint import content_hash, open_checkpoint, open_pair, read_bytes, read_tensor
from dgviz.errors import CheckpointError, PairError
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.svd.decompose import decompose
from dgviz.spectra.weight import Weight
from tests.checkpoints import planted_update, random_tensors, tiny_model, write_checkpoint

UP = "model.layers.2.mlp.up"
PEFT = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["up"]}


def factors(rows: int, cols: int, rank: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A (rank, cols) and B (rows, rank)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, cols, generator=generator) / 10, torch.randn(rows, rank, generator=generator) / 10


def write_adapter(directory, modules: dict, config: dict | None = None, extra: dict | None = None):
    """Write an adapter as PEFT does: factors by module, anything else under its own name."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, (first, second) in modules.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = first.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = second.contiguous()
    tensors |= {f"base_model.model.{name}": tensor for name, tensor in (extra or {}).items()}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    (directory / "adapter_config.json").write_text(json.dumps(PEFT | (config or {})))
    return directory


@pytest.fixture
def base(tmp_path):
    return write_checkpoint(tmp_path / "base", random_tensors(), {"vocab_size": 96})


def refusal(base, adapter, kind=CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        open_pair(base, adapter)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the update -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, 2),
        ({"use_rslora": True}, 4),
        ({"lora_alpha": 1}, 0.25),
        ({"r": 16, "rank_pattern": {"2.mlp.up": 4}}, 2),
        ({"rank_pattern": {r"^model\.layers\.2\.mlp\.up": 4, "up": 5}, "r": 9}, 2),
        ({"alpha_pattern": {"mlp.up": 12}}, 3),
        ({"alpha_pattern": {"p": 12, "10.mlp.up": 12}}, 2),
        ({"alpha_pattern": {r".*\.[0-9]\.mlp\.up": 2}, "use_rslora": True}, 1),
    ],
)
def test_the_scaling_is_pefts(tmp_path, base, config, scaling):
    first, second = factors(64, 32)
    pair = open_pair(base, write_adapter(tmp_path / "a", {UP: (first, second)}, config))
    delta = compute_delta(Weight(pair[f"{UP}.weight"]), "cpu")
    torch.testing.assert_close(delta.double(), scaling * second.double() @ first.double(), rtol=1e-5, atol=1e-7)
    assert delta.dtype == torch.float32 and delta.is_contiguous()


def test_every_tensor_has_its_fate(tmp_path, base):
    pair = open_pair(base, write_adapter(tmp_path / "a", {UP: factors(64, 32)}))
    assert [row.name for row in pair.tensors] == list(pair.base.tensors)
    row = pair[f"{UP}.weight"]
    assert row.reason == "A floating-point matrix, to which the adapter adds an update of rank 4."
    for other in pair.tensors:
        assert other is row or (other.action, other.reason) == ("keep", "The adapter leaves it as it is in base.")
    assert pickle.loads(pickle.dumps(pair)) == pair
    assert Weight(pickle.loads(pickle.dumps(row))).key == Weight(row).key


def test_the_spectrum_has_exactly_the_adapters_rank(tmp_path, base):
    row = open_pair(base, write_adapter(tmp_path / "a", {UP: factors(64, 32)}))[f"{UP}.weight"]
    s = decompose(compute_delta(Weight(row), "cpu"), "cpu").s
    assert (s[:4] > 0.01).all() and (s[4:] < 1e-6 * s[0]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_merged_weight_is_rounded_once(tmp_path, dtype):
    tensors = random_tensors(dtype=dtype)
    base = write_checkpoint(tmp_path / "base", tensors)
    first, second = factors(64, 32)
    info = open_pair(base, write_adapter(tmp_path / "a", {UP: (first, second)}))[f"{UP}.weight"].tuned
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    update = (second.to(wide) @ first.to(wide)) * 2
    expected = (tensors[f"{UP}.weight"].to(wide) + update).to(dtype)
    assert torch.equal(read_tensor(info), expected)
    raw = expected.view(torch.uint8).numpy().tobytes()
    assert read_bytes(info) == raw and read_bytes(info, 8, 16) == raw[8:24] and info.nbytes == len(raw)
    with pytest.raises(ValueError, match="lie outside"):
        read_bytes(info, 8, len(raw))


def test_a_hash_follows_factors_scaling_and_base(tmp_path, base):
    def hashed(**config) -> str:
        adapter = write_adapter(tmp_path / "a", {UP: config.pop("pair", factors(64, 32))}, config)
        return content_hash(open_pair(base, adapter)[f"{UP}.weight"].tuned)

    seen = [hashed(), hashed(lora_alpha=9), hashed(pair=factors(64, 32, seed=1))]
    assert len(set(seen)) == 3 and hashed() == seen[0]


def test_transposed_layers_embeddings_kernels_and_whole_modules(tmp_path, base):
    embedding, kernel, turned = factors(32, 96), factors(32, 48), factors(32, 64)
    extra = {
        "model.embed_tokens.lora_embedding_A": embedding[0],
        "model.embed_tokens.lora_embedding_B": embedding[1],
        "model.conv.lora_A.weight": kernel[0].reshape(4, 3, 4, 4),
        "model.conv.lora_B.weight": kernel[1].reshape(32, 4, 1, 1),
        "model.layers.10.mlp.up.weight": torch.ones(64, 32),
        "model.norm.weight": torch.ones(2048),
    }
    pair = open_pair(base, write_adapter(tmp_path / "a", {UP: turned}, {"fan_in_fan_out": True}, extra))
    for name, expected in (
        (f"{UP}.weight", (turned[1] @ turned[0]).T),
        ("model.embed_tokens.weight", (embedding[1] @ embedding[0]).T),
        ("model.conv.weight", kernel[1] @ kernel[0]),
        (
            "model.layers.10.mlp.up.weight",
            (torch.ones(64, 32) - random_tensors()["model.layers.10.mlp.up.weight"]) / 2,
        ),
    ):
        torch.testing.assert_close(compute_delta(Weight(pair[name]), "cpu"), 2 * expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(read_tensor(pair["model.norm.weight"].tuned), torch.ones(2048))
    assert "Not a matrix" in pair["model.norm.weight"].reason


def test_a_square_weight_is_turned_as_the_config_says(tmp_path):
    base = write_checkpoint(tmp_path / "base", {"a.weight": torch.zeros(32, 32), "b.weight": torch.zeros(32, 64)})
    first, second = factors(32, 32)
    for said in (True, False):
        pair = open_pair(base, write_adapter(tmp_path / "a", {"a": (first, second)}, {"fan_in_fan_out": said}))
        update = 2 * second @ first
        torch.testing.assert_close(compute_delta(Weight(pair["a.weight"]), "cpu"), update.T if said else update)
    both = {"a": (first, second), "b": factors(32, 64)}
    adapter = write_adapter(tmp_path / "both", both, {"fan_in_fan_out": True})
    assert "fan_in_fan_out = True, but the shapes say otherwise" in refusal(base, adapter)


# --- export ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
def test_the_export_has_bases_names_shards_and_sidecars(tmp_path, shards):
    tensors = random_tensors(dtype=torch.bfloat16)
    base = write_checkpoint(tmp_path / "base", tensors, {"vocab_size": 96}, shards)
    first, second = factors(64, 32)
    adapter = write_adapter(tmp_path / "a", {UP: (first, second)})
    (adapter / "tokenizer.json").write_text("{}")
    pair = open_pair(base, adapter)
    plan = plan_export(pair, RepairPlan("fixed_rank", {"rank": 2}), tmp_path / "out")
    report = list(iter_export(plan, "cpu"))[-1].report
    written = open_checkpoint(tmp_path / "out")
    assert written.shards == open_checkpoint(base).shards and written.config == {"vocab_size": 96}
    assert report["sidecars"] == {"config.json": "base", "tokenizer.json": "tuned"}
    left, s, right = torch.linalg.svd((2 * second @ first).double(), full_matrices=False)
    kept = (left[:, :2] * s[:2]) @ right[:2]
    for name, info in written.tensors.items():
        expected = tensors[name]
        if name == f"{UP}.weight":
            exact = expected.double() + kept
            half = 2.0 ** (exact.abs().log2().floor() - 8) * 1.001  # of the last place of bfloat16
            assert info.dtype == "bfloat16" and ((read_tensor(info).double() - exact).abs() <= half).all()
        else:
            assert torch.equal(read_tensor(info), expected), name
    assert report["tensors"][f"{UP}.weight"]["written"] == "repaired"


def test_a_rule_that_drops_nothing_writes_the_merged_model(tmp_path, base):
    pair = open_pair(base, write_adapter(tmp_path / "a", {UP: factors(64, 32)}))
    plan = plan_export(pair, RepairPlan("manual", {"tau": 0.0}), tmp_path / "out")
    list(iter_export(plan, "cpu"))
    written = load_file(tmp_path / "out" / "model.safetensors")
    for row in pair.tensors:
        assert torch.equal(written[row.name], read_tensor(row.tuned))
    assert torch.equal(written["model.pos"], random_tensors()["model.pos"])


@pytest.mark.parametrize("old_names", [False, True])
def test_an_adapter_of_a_renamed_model(tmp_path, old_names):
    """Adapters name modules as the model has them, while base may be stored under the names of version 4."""
    model = tiny_model("llava")
    model.save_pretrained(tmp_path / "base", save_original_format=old_names)
    first, second = factors(64, 32)
    module = "model.language_model.layers.1.mlp.gate_proj"
    pair = open_pair(tmp_path / "base", write_adapter(tmp_path / "a", {module: (first, second)}))
    stored = "language_model.model.layers.1.mlp.gate_proj" if old_names else module
    assert [row.name for row in pair.repairable] == [f"{stored}.weight"]
    torch.testing.assert_close(compute_delta(Weight(pair.repairable[0]), "cpu"), 2 * second @ first)
    list(iter_export(plan_export(pair, RepairPlan("manual", {"tau": 0.0}), tmp_path / "out"), "cpu"))
    merged = type(model).from_pretrained(tmp_path / "out").state_dict()
    before = model.state_dict()
    for name, tensor in merged.items():
        expected = before[name] + (2 * second @ first if name == f"{module}.weight" else 0)
        torch.testing.assert_close(tensor, expected)


def test_gpt2_with_an_adapter(tmp_path):
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path / "base")
    modules = {"transformer.h.0.attn.c_attn": factors(96, 32), "transformer.h.1.attn.c_proj": factors(32, 32)}
    pair = open_pair(tmp_path / "base", write_adapter(tmp_path / "a", modules, {"fan_in_fan_out": True}))
    for name, (first, second) in modules.items():
        torch.testing.assert_close(compute_delta(Weight(pair[f"{name}.weight"]), "cpu"), 2 * (second @ first).T)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"peft_type": "LOHA"}, "says peft_type 'LOHA', and only LORA adapters are read: merge it"),
        ({"peft_type": None}, "says peft_type None"),
        ({"use_dora": True}, "use_dora = True (DoRA), which is not read: merge it"),
        ({"use_qalora": True}, "(QALoRA)"),
        ({"lora_bias": True}, "lora_bias"),
        ({"target_parameters": "experts.gate_up_proj"}, "target_parameters = 'experts.gate_up_proj', not a list"),
        ({"velora_config": {"rank": 1}}, "(VeLoRA)"),
        ({"use_bdlora": True}, "(block-diagonal LoRA)"),
        ({"use_new_thing": 3}, "says use_new_thing = 3, which is not known here: merge it"),
        ({"trainable_token_indices": [1, 2]}, "trainable tokens"),
        ({"layer_replication": [[0, 1]]}, "layer replication"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights = 'pissa_niter_16', which changes the base"),
        ({"r": 5}, "is (4, 32), but adapter_config.json says rank 5 for 'model.layers.2.mlp.up'"),
        ({"r": "4"}, "says r = '4' for 'model.layers.2.mlp.up'"),
        ({"lora_alpha": True}, "says lora_alpha = True"),
        ({"lora_alpha": 1e300}, "says lora_alpha = 1e+300"),
        ({"rank_pattern": {"(": 3}}, "rank_pattern is not read (missing )"),
        ({"rank_pattern": [3]}, "rank_pattern is not read"),
        ({"rank_pattern": {"[[": 3}}, "rank_pattern is not read (unterminated character set"),
        ({"alpha_pattern": {"(.|.|.|.)" * 20 + "u": 3}}, "alpha_pattern is not read (regex timed out)"),
        ({"alpha_pattern": {"(" * 3000: 3}}, "alpha_pattern is not read (maximum recursion depth"),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(tmp_path, base, config, complaint):
    assert complaint in refusal(base, write_adapter(tmp_path / "a", {UP: factors(64, 32)}, config))


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (
            {"model.layers.2.mlp.up.lora_magnitude_vector": torch.ones(64)},
            "lora_magnitude_vector', which is not read",
        ),
        (
            {"model.none.lora_A.weight": torch.ones(4, 32)},
            "only A of the two LoRA factors of 'model.none.weight'",
        ),
        ({"lm_head.weight": torch.ones(96, 32)}, "changes 'lm_head.weight', which"),
        ({"model.embed_tokens.weight": torch.ones(97, 32)}, "is (97, 32), but base's 'model.embed_tokens.weight' is"),
    ],
)
def test_tensors_that_fit_nothing_are_refused(tmp_path, base, extra, complaint):
    assert complaint in refusal(base, write_adapter(tmp_path / "a", {UP: factors(64, 32)}, {}, extra))


def test_factors_must_fit(tmp_path, base):
    first, second = factors(64, 32)
    assert "do not multiply" in refusal(base, write_adapter(tmp_path / "a", {UP: (first, second[:, :3])}))
    message = refusal(base, write_adapter(tmp_path / "a", {UP: factors(64, 40)}))
    assert "make (64, 40), but base's 'model.layers.2.mlp.up.weight' is (64, 32)" in message
    codes = {UP: (first.int(), second)}
    assert "is int32, which cannot be added up" in refusal(base, write_adapter(tmp_path / "a", codes))


def test_missing_and_damaged_files(tmp_path, base):
    adapter = write_adapter(tmp_path / "a", {UP: factors(64, 32)})
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "peft_type": "LORA"}')
    assert "key 'peft_type' is there twice" in refusal(base, adapter)
    (adapter / "adapter_config.json").write_text(json.dumps(PEFT))
    (adapter / "adapter_model.safetensors").unlink()
    assert "has adapter_config.json but no adapter_model.safetensors" in refusal(base, adapter)
    save_file({}, adapter / "adapter_model.safetensors")
    assert "holds no tensors" in refusal(base, adapter)


def test_an_adapter_is_no_base_and_changes_something(tmp_path, base):
    adapter = write_adapter(tmp_path / "a", {UP: factors(64, 32)})
    assert "give it as tuned, and the model it was trained on as base" in refusal(adapter, base)
    small = {"model.small": factors(16, 16)}
    assert "nothing to repair" in refusal(base, write_adapter(tmp_path / "small", small), PairError)


def test_a_merged_model_beside_its_adapter_is_the_model(tmp_path, base):
    both = write_adapter(tmp_path / "a", {UP: factors(64, 32)})
    shutil.copy(write_checkpoint(tmp_path / "m", planted_update(random_tensors())) / "model.safetensors", both)
    assert re.search("same shape on both sides", open_pair(base, both)["model.pos"].reason)
