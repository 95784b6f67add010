"""Names: wrappers, transformers' renamings, fused experts, tied heads and grown vocabularies, over many families."""

import json
import math
from functools import cache
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from dgviz.checkpoint import CheckpointPair, open_pair, read_tensor
from dgviz.checkpoint.names import unwrapped_names
from dgviz.checkpoint.renaming import Renaming
from dgviz.errors import CheckpointError, PairError
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.weight import Weight
from tests.checkpoints import (
    model_inputs,
    planted_update,
    random_tensors,
    tiny_model,
    tune,
    write_checkpoint,
)

RANK = 2


def save(model, directory, old_names: bool, sharded: bool):
    """Save a model by transformers, under the names of version 4 or 5."""
    options = {"max_shard_size": "60KB"} if sharded else {}
    model.save_pretrained(directory, save_original_format=old_names, **options)
    return directory


def stored(directory) -> dict[str, torch.Tensor]:
    """Return every tensor of a checkpoint."""
    return {key: value for file in sorted(directory.glob("*.safetensors")) for key, value in load_file(file).items()}


def low_rank(delta: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the best approximation of a rank, in float64."""
    left, s, right = torch.linalg.svd(delta.double(), full_matrices=False)
    return (left[..., :rank] * s[..., None, :rank]) @ right[..., :rank, :]


def reference_repair(base: dict, tuned: dict) -> dict[str, torch.Tensor]:
    """Repair with a fixed rank in float64, from two checkpoints of the same names; written without dgviz."""
    repaired = {}
    for name, tensor in tuned.items():
        sizes = [size for size in tensor.shape if size != 1]
        if len(sizes) < 2 or tensor.numel() < 1024:
            repaired[name] = tensor.double()
            continue
        shape = sizes if len(sizes) == 3 and ".experts." in name else (sizes[0], math.prod(sizes[1:]))
        delta = (tensor.double() - base[name].double()).reshape(shape)
        repaired[name] = base[name].double() + low_rank(delta, RANK).reshape(tensor.shape)
    return repaired


def assert_complete(pair: CheckpointPair) -> None:
    """Check that every tensor of both sides is accounted for and has its other side."""
    assert [row.tuned for row in pair.tensors] == list(pair.tuned.tensors.values())
    assert pair.counts()["base_only"] == 0
    for row in pair.tensors:
        assert row.base is not None and row.base.shape == row.tuned.shape, row
        assert row.action == "repair" or "Not a matrix" in row.reason or "Small" in row.reason


def export(pair: CheckpointPair, out) -> dict:
    """Write the repair of a fixed rank; return the report's rows. `logits` loads it, and not a process per export."""
    plan = plan_export(pair, RepairPlan("fixed_rank", {"rank": RANK}), out)
    with patch("dgviz.export.full.verify_load", return_value=({"transformers": {"skipped": "tests do"}}, 0.0)):
        return list(iter_export(plan, "cpu"))[-1].tensors


@cache
def model_class(family: str) -> type:
    """Return transformers' class of a tiny model."""
    return type(tiny_model(family))


def logits(family: str, directory, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Load a checkpoint with transformers, where every parameter must be found, and run it."""
    model, info = model_class(family).from_pretrained(directory, dtype=dtype, output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}
    inputs = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in model_inputs(family).items()
    }
    model.set_experts_implementation("eager")  # grouped products know no float64
    with torch.no_grad():
        output = model.eval()(**inputs)
    return output.logits_per_image if family == "clip" else output.logits


# --- wrappers -------------------------------------------------------------------------------------------------------

WRAPPERS = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name.replace('mlp.', 'mlp._fsdp_wrapped_module.')}",
    "checkpointing": lambda name: name.replace("mlp.", "_checkpoint_wrapped_module.mlp."),
    "DDP": lambda name: f"module.{name}",
    "PEFT": lambda name: f"base_model.model.{name}",
    "DDP of torch.compile": lambda name: f"module._orig_mod.{name}",
}


@pytest.mark.parametrize("wrapped", ["base", "tuned"])
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_what_wrappers_put_into_names_is_no_difference(tmp_path, wrapper, wrapped):
    tensors = {"base": random_tensors()}
    tensors["tuned"] = planted_update(tensors["base"])
    config = {"model_type": "llama"}
    plain = open_pair(*(write_checkpoint(tmp_path / "plain" / side, tensors[side], config) for side in tensors))
    tensors[wrapped] = {wrapper(name): tensor for name, tensor in tensors[wrapped].items()}
    pair = open_pair(*(write_checkpoint(tmp_path / side, tensors[side], config) for side in tensors))
    assert pair.counts() == plain.counts() and pair.counts()["base_only"] == 0
    # Written without the wrapper, for this config names a class, and no class has it.
    assert [row.name for row in pair.tensors] == [row.name for row in plain.tensors]
    row = pair["model.layers.2.mlp.up.weight"]
    other = wrapper(row.name) if wrapped == "base" else row.name
    assert row.reason == f"A floating-point matrix; base calls it {other}, apart from wrappers, of the same shape."
    expected = compute_delta(Weight(plain["model.layers.2.mlp.up.weight"]), "cpu")
    assert torch.equal(compute_delta(Weight(row), "cpu"), expected)


def test_prefixes_are_stripped_only_where_they_are_wrappers():
    assert unwrapped_names(["module.a", "b"]) == {"module.a": "module.a", "b": "b"}
    assert unwrapped_names(["module.a", "module.b"]) == {"module.a": "a", "module.b": "b"}
    assert unwrapped_names(["module.module.a"]) == {"module.module.a": "a"}
    assert unwrapped_names(["a._orig_mod.w", "a.w"]) == {"a._orig_mod.w": "a._orig_mod.w", "a.w": "a.w"}
    assert unwrapped_names(["my_orig_mod.w"]) == {"my_orig_mod.w": "my_orig_mod.w"}
    assert unwrapped_names([]) == {}


# --- transformers' renamings ----------------------------------------------------------------------------------------


def test_a_renamed_tensor_says_so(tmp_path):
    model = tiny_model("llava")
    base = save(model, tmp_path / "base", True, sharded=False)
    pair = open_pair(base, save(tune(model), tmp_path / "tuned", False, sharded=False))
    reason = pair["model.language_model.layers.0.mlp.up_proj.weight"].reason
    other = "language_model.model.layers.0.mlp.up_proj.weight"
    assert reason == f"A floating-point matrix; base calls it {other}, by transformers, of the same shape."


def test_a_model_without_its_head_belongs_to_one_with_it(tmp_path):
    model = tiny_model("llama_untied")
    base = save(model.model, tmp_path / "base", False, sharded=False)
    pair = open_pair(base, save(tune(model), tmp_path / "tuned", False, sharded=False))
    assert pair.counts()["base_only"] == 0 and len(pair.repairable) == 11
    assert pair["lm_head.weight"].reason == "Only in tuned, so there is no delta."


def test_exact_names_where_transformers_cannot_be_asked(tmp_path):
    tensors = random_tensors()
    updated = planted_update(tensors).items()
    tuned = {name.replace(".", "_") if "layers" in name else name: tensor for name, tensor in updated}
    for config, problem in (
        ({"model_type": "no_such_model"}, "transformers cannot build this model (KeyError: "),
        ({"model_type": "llama", "num_attention_heads": 0}, "transformers cannot build this model ("),
        ({"model_type": "my_own", "auto_map": {"AutoModel": "evil.Model"}}, "own code (auto_map), which is not run"),
        ({"model_type": "llama", "num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000, more than the 11 ten"),
    ):
        base = write_checkpoint(tmp_path / "b", tensors, config)
        pair = open_pair(base, write_checkpoint(tmp_path / "t", tuned, config))
        row = pair["model_layers_2_mlp_up_weight"]
        assert row.action == "keep" and row.reason.startswith("Only in tuned, so there is no delta (by exact names: ")
        assert problem in row.reason and "\n" not in row.reason
        assert pair["model.layers.2.mlp.up.weight"].action == "base_only"
        assert pair["model.pos"].action == "repair"


def test_transformers_is_asked_only_when_names_differ_on_both_sides(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "dgviz.checkpoint.names.rename_like_transformers", lambda *args: asked.append(args) or Renaming()
    )
    tensors, config = random_tensors(), {"model_type": "llama"}
    more = planted_update(tensors) | {"more.weight": torch.ones(40, 40)}
    open_pair(write_checkpoint(tmp_path / "b", tensors, config), write_checkpoint(tmp_path / "t", more, config))
    assert asked == []
    del more["model.pos"]
    open_pair(write_checkpoint(tmp_path / "b", tensors, config), write_checkpoint(tmp_path / "t", more, config))
    assert len(asked) == 2


# --- experts --------------------------------------------------------------------------------------------------------


def test_experts_pair_slice_by_slice(tmp_path):
    model = tiny_model("mixtral")
    fused = save(model, tmp_path / "fused", False, sharded=False)
    single = save(model, tmp_path / "single", True, sharded=True)
    tuned = save(tune(model), tmp_path / "tuned", False, sharded=False)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    row, plain = open_pair(single, tuned)[name], open_pair(fused, tuned)[name]
    assert "base stores its 4 experts one by one" in row.reason
    for expert in range(4):
        assert torch.equal(compute_delta(Weight(row, expert), "cpu"), compute_delta(Weight(plain, expert), "cpu"))
    assert torch.equal(read_tensor(row.base), read_tensor(plain.base))
    parts = open_pair(fused, save(tune(model), tmp_path / "parts", True, sharded=False))
    part = parts["model.layers.1.block_sparse_moe.experts.3.w3.weight"]
    assert f"it is part of expert 3 of base's {name}" in part.reason
    assert torch.equal(read_tensor(part.base), read_tensor(plain.base)[3, 64:])


def test_an_expert_that_base_lacks_leaves_the_stack_alone(tmp_path):
    model = tiny_model("mixtral")
    single = save(model, tmp_path / "single", True, sharded=False)
    tensors = stored(single)
    del tensors["model.layers.1.block_sparse_moe.experts.2.w1.weight"]
    base = write_checkpoint(tmp_path / "base", tensors, json.loads((single / "config.json").read_text()))
    pair = open_pair(base, save(tune(model), tmp_path / "tuned", False, sharded=False))
    assert pair["model.layers.1.mlp.experts.gate_up_proj"].reason.startswith("Only in tuned")
    assert pair["model.layers.0.mlp.experts.gate_up_proj"].action == "repair"
    assert pair.counts()["base_only"] == 7


# --- tied heads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base_stores", [False, True])
def test_a_tied_head_that_is_stored_is_written_twice_alike(tmp_path, base_stores):
    model = tiny_model("llama_tied")
    paths = save(model, tmp_path / "b", False, False), save(tune(model), tmp_path / "t", False, False)
    for path, head in zip(paths, (base_stores, True), strict=True):
        tensors = stored(path)
        if head:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        write_checkpoint(path, tensors)
    assert_complete(open_pair(*paths))
    pair = open_pair(*paths, include="embed_tokens")  # the head follows its embedding
    assert [row.name for row in pair.repairable] == ["lm_head.weight", "model.embed_tokens.weight"]
    assert pair["lm_head.weight"].reason.startswith("Tied to model.embed_tokens.weight: one tensor, stored twice")
    rows = export(pair, tmp_path / "out")
    written = stored(tmp_path / "out")
    assert rows["lm_head.weight"]["written"] == "repaired"
    assert torch.equal(written["lm_head.weight"], written["model.embed_tokens.weight"])
    assert not torch.equal(written["lm_head.weight"], stored(paths[1])["lm_head.weight"])


def test_a_head_that_is_not_tied_any_more_has_a_fate_of_its_own(tmp_path):
    tensors, config = random_tensors(), {"tie_word_embeddings": True}
    base = write_checkpoint(tmp_path / "b", tensors | {"lm_head.weight": torch.randn(96, 32)}, config)
    tuned = planted_update(tensors)
    own = write_checkpoint(tmp_path / "own", tuned | {"lm_head.weight": torch.randn(96, 32)}, config)
    assert open_pair(base, own)["lm_head.weight"].base.name == "lm_head.weight"
    tied = write_checkpoint(
        tmp_path / "tied", tuned | {"lm_head.weight": tuned["model.embed_tokens.weight"].clone()}, config
    )
    pair = open_pair(base, tied)
    assert pair["lm_head.weight"].base.name == "model.embed_tokens.weight"
    assert [row.name for row in pair.tensors if row.action == "base_only"] == ["lm_head.weight (base)"]
    assert len({row.name for row in pair.tensors}) == len(pair.tensors)


SHARED = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


@pytest.mark.slow
@pytest.mark.parametrize("grown", [False, True], ids=["", "grown"])
@pytest.mark.parametrize(
    ("base_has", "tuned_has"),
    [
        (SHARED[:1], SHARED),
        (SHARED, SHARED[:1]),
        (SHARED, SHARED),
        (SHARED[1:3], SHARED[:1]),
        (SHARED[:1], SHARED[1:]),
    ],
    ids=["tuned-all", "base-all", "both-all", "base-parts", "tuned-parts"],
)
def test_an_embedding_under_several_names_is_one_tensor(tmp_path, base_has, tuned_has, grown):
    """T5's embedding has four names; whichever each side stores, the output's are bit for bit the same."""
    model = tiny_model("t5")
    base = save(model, tmp_path / "base", False, sharded=False)
    if grown:
        model.resize_token_embeddings(104)
    tuned = save(tune(model), tmp_path / "tuned", False, sharded=False)
    for path, names in ((base, base_has), (tuned, tuned_has)):
        tensors = stored(path)
        embedding = tensors.pop("shared.weight")
        write_checkpoint(path, tensors | {name: embedding.clone() for name in names})
    pair = open_pair(base, tuned)
    assert {row.name for row in pair.tensors if row.tuned is None} == set(base_has) - set(tuned_has) - {
        pair[name].base.name for name in tuned_has
    }
    first = pair[tuned_has[0]]
    for name in tuned_has:
        assert (pair[name].action, pair[name].rows) == ("repair", ((0, 96),) if grown else None)
        assert torch.equal(compute_delta(Weight(pair[name]), "cpu"), compute_delta(Weight(first), "cpu"))
    export(pair, tmp_path / "out")
    written, before, after = stored(tmp_path / "out"), stored(base)[base_has[0]], stored(tuned)[tuned_has[0]]
    expected = before.double() + low_rank(after[:96].double() - before.double(), RANK)
    torch.testing.assert_close(written[tuned_has[0]][:96].double(), expected, rtol=0, atol=2e-7)
    assert all(torch.equal(written[name], written[tuned_has[0]]) for name in tuned_has)
    if "lm_head.weight" not in tuned_has or "shared.weight" in tuned_has:
        logits("t5", tmp_path / "out")


def test_an_embedding_that_tuned_took_apart_has_its_own_update(tmp_path):
    model = tiny_model("t5")
    base = save(model, tmp_path / "base", False, sharded=False)
    tuned = save(tune(model), tmp_path / "tuned", False, sharded=False)
    tensors = stored(tuned)
    own = tensors["shared.weight"] + 1
    write_checkpoint(tuned, tensors | {"encoder.embed_tokens.weight": own})
    pair = open_pair(base, tuned)
    row = pair["encoder.embed_tokens.weight"]
    assert row.reason == "A floating-point matrix; base shares it with shared.weight, of the same shape."
    assert torch.equal(compute_delta(Weight(row), "cpu"), own - stored(base)["shared.weight"])


# --- vocabularies ---------------------------------------------------------------------------------------------------


def write_tokenizer(directory, tokens: list[str]) -> None:
    """Write the part of a tokenizer.json that names tokens: the last one as an added token."""
    vocabulary = {token: number for number, token in enumerate(tokens[:-1])}
    added = [{"id": len(tokens) - 1, "content": tokens[-1]}]
    (directory / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))


def grown_pair(directory, base_rows: int, tuned_rows: int):
    """Save a tied model, and the same tuned with its vocabulary resized by transformers."""
    model = tiny_model("llama_untied")
    model.resize_token_embeddings(base_rows)
    base = save(model, directory / "base", False, False)
    model.resize_token_embeddings(tuned_rows)
    return base, save(tune(model), directory / "tuned", False, False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("base_rows", "tuned_rows"), [(96, 104), (104, 96)])
def test_the_rows_in_common_are_repaired_and_the_others_copied(tmp_path, base_rows, tuned_rows):
    base, tuned = grown_pair(tmp_path, base_rows, tuned_rows)
    pair = open_pair(base, tuned)
    before, after = stored(base), stored(tuned)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        row = pair[name]
        assert row.action == "repair" and row.rows == (((0, 96),) if tuned_rows == 104 else None)
        assert f"96 of its {tuned_rows} rows have the same token in base (by position" in row.reason
        delta = after[name][:96] - before[name][:96]
        assert torch.equal(compute_delta(Weight(row), "cpu"), delta)
    export(pair, tmp_path / "out")
    written = stored(tmp_path / "out")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        delta = after[name][:96].double() - before[name][:96].double()
        expected = before[name][:96].double() + low_rank(delta, RANK)
        torch.testing.assert_close(written[name][:96].double(), expected, rtol=0, atol=2e-7)
        assert torch.equal(written[name][96:], after[name][96:])
    logits("llama_untied", tmp_path / "out")


def test_rows_belong_together_by_token(tmp_path):
    config = {"vocab_size": 96}
    tensors = random_tensors()
    name = "model.embed_tokens.weight"
    tuned = planted_update(tensors)
    tuned[name] = torch.cat([tuned[name], torch.randn(8, 32)])
    base = write_checkpoint(tmp_path / "b", tensors, config)
    grown = write_checkpoint(tmp_path / "t", tuned, config | {"vocab_size": 104})
    words = [f"w{number}" for number in range(90)]
    write_tokenizer(base, words)
    write_tokenizer(grown, [*words[:40], "other", *words[41:], *(f"new{number}" for number in range(12))])
    row = open_pair(base, grown)[name]
    assert row.rows == ((0, 40), (41, 90))  # 40 is another word; 90 to 95 had none in base
    assert "89 of its 104 rows have the same token in base (by tokenizer.json) and are repaired, 15" in row.reason
    rows = [*range(40), *range(41, 90)]
    assert torch.equal(compute_delta(Weight(row), "cpu"), tuned[name][rows] - tensors[name][rows])
    export(open_pair(base, grown), tmp_path / "out")
    written = stored(tmp_path / "out")[name]
    others = [number for number in range(104) if number not in rows]
    assert torch.equal(written[others], tuned[name][others])
    assert not torch.isclose(written[rows], tuned[name][rows], rtol=0, atol=1e-5).all(dim=1).any()


def test_a_vocabulary_is_told_from_any_other_mismatch(tmp_path):
    tensors, name = random_tensors(), "model.embed_tokens.weight"
    base = write_checkpoint(tmp_path / "b", tensors, {"vocab_size": 96})
    for shape, config in (((104, 32), {"vocab_size": 103}), ((104, 32), {}), ((104, 40), {"vocab_size": 104})):
        tuned = write_checkpoint(tmp_path / "t", planted_update(tensors) | {name: torch.zeros(shape)}, config)
        with pytest.raises(PairError, match=r"1 of 11 common tensors differ in shape: 'model.embed_tokens.weight'"):
            open_pair(base, tuned)


@pytest.mark.parametrize("text", ["[]", "{}", '{"model": {"vocab": {"a": "b"}}}', '{"model": {"vocab": 3}}', "{"])
def test_a_damaged_tokenizer_is_refused(tmp_path, text):
    tensors, name = random_tensors(), "model.embed_tokens.weight"
    tuned = planted_update(tensors) | {name: torch.zeros(104, 32)}
    base = write_checkpoint(tmp_path / "b", tensors, {"vocab_size": 96})
    grown = write_checkpoint(tmp_path / "t", tuned, {"vocab_size": 104})
    write_tokenizer(base, ["a", "b"])
    (grown / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer.json"):
        open_pair(base, grown)
