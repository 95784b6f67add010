"""Pairing: every tensor of both sides has one fate and a reason; pairs that do not belong together are refused."""

import pickle
import re
import shlex
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dgviz.checkpoint import CheckpointPair, matrix_layout, open_checkpoint, open_pair, pair_checkpoints
from dgviz.errors import CheckpointError, PairError
from tests.checkpoints import FAMILIES, planted_update, random_tensors, write_checkpoint, write_pair, write_tiny_pair


def refusal(*args, kind=PairError, **kwargs) -> str:
    """Return the message with which open_pair refuses; it must be one line."""
    with pytest.raises(kind) as caught:
        open_pair(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def assert_complete(pair: CheckpointPair) -> None:
    """Check that every tensor of both sides is in exactly one row, on its own side, with a reason."""
    assert [row.tuned for row in pair.tensors if row.tuned] == list(pair.tuned.tensors.values())
    base_only = [row.base for row in pair.tensors if row.action == "base_only"]
    in_base = [row.base.name for row in pair.tensors if row.base]
    assert set(in_base) == set(pair.base.tensors)
    assert all(info not in [row.base for row in pair.tensors if row.tuned] for info in base_only)
    assert len({row.name for row in pair.tensors}) == len(pair.tensors)
    for row in pair.tensors:
        assert row.action in ("repair", "keep", "base_only")
        assert (row.tuned is None) == (row.action == "base_only")
        assert re.fullmatch(r"[A-Z].*\.", row.reason)
        if row.action == "repair":
            assert row.base.shape == row.tuned.shape and row.tuned.is_floating and row.tuned.numel >= 1024
            assert row.layout is not None
    assert sum(pair.counts().values()) == len(pair.tensors)
    assert len(pair.repairable) == pair.counts()["repair"] > 0


# --- fates ----------------------------------------------------------------------------------------------------------


def test_fates_and_reasons(tmp_path):
    tensors = random_tensors()
    tuned = planted_update(tensors) | {"extra.weight": torch.randn(64, 64)}
    tensors["left.weight"] = torch.randn(64, 64)
    pair = open_pair(
        write_checkpoint(tmp_path / "base", tensors),
        write_checkpoint(tmp_path / "tuned", tuned, shards=2),
        exclude=r"layers\.10\.",
    )
    assert_complete(pair)
    repaired = "A floating-point matrix of the same shape on both sides."
    vector = "Not a matrix: fewer than two dimensions longer than one."
    assert {row.name: (row.action, row.reason) for row in pair.tensors} == {
        "extra.weight": ("keep", "Only in tuned, so there is no delta."),
        "model.conv.weight": ("repair", repaired),
        "model.embed_tokens.weight": ("repair", repaired),
        "model.layers.2.mlp.experts.gate_up_proj": ("repair", repaired),
        "model.layers.2.mlp.up.weight": ("repair", repaired),
        "model.layers.10.mlp.up.weight": ("keep", "Excluded by --exclude."),
        "model.norm.column": ("keep", vector),
        "model.norm.weight": ("keep", vector),
        "model.pos": ("repair", repaired),
        "model.position_ids": ("keep", "Not floating point (int64 in tuned), so there is no spectrum."),
        "model.scalar": ("keep", vector),
        "model.small.weight": ("keep", "Small: fewer than 1024 elements."),
        "left.weight": ("base_only", "Only in base, and the repaired model has tuned's tensors."),
    }
    assert pair.counts() == {"repair": 5, "keep": 7, "base_only": 1}
    assert pair.tensors[-1].name == "left.weight"


def test_include_and_exclude_are_searched_for(tmp_path):
    base, tuned = write_pair(tmp_path)
    pair = open_pair(base, tuned, include="layers", exclude="experts$|gate_up")
    assert [row.name for row in pair.repairable] == ["model.layers.2.mlp.up.weight", "model.layers.10.mlp.up.weight"]
    assert pair["model.conv.weight"].reason == "Not selected by --include."
    assert pair["model.layers.2.mlp.experts.gate_up_proj"].reason == "Excluded by --exclude."
    assert_complete(pair)


def test_1024_elements_are_enough(tmp_path):
    tensors = {"a": torch.zeros(32, 32), "b": torch.zeros(31, 33)}
    pair = open_pair(write_checkpoint(tmp_path / "b", tensors), write_checkpoint(tmp_path / "t", tensors))
    assert {row.name: row.action for row in pair.tensors} == {"a": "repair", "b": "keep"}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_real_models_has_a_fate(tmp_path, family, sharded):
    base, tuned = write_tiny_pair(tmp_path, family, sharded)
    pair = open_pair(base, tuned)
    assert_complete(pair)
    assert (len(pair.tuned.shards) > 1) == sharded
    assert pair.counts()["base_only"] == 0
    actions = {row.name: row.action for row in pair.tensors}
    expected = {
        "llama_tied": {"model.layers.0.self_attn.q_proj.weight": "repair", "model.norm.weight": "keep"},
        "llama_untied": {"lm_head.weight": "repair", "model.embed_tokens.weight": "repair"},
        "gpt2": {"transformer.h.0.attn.c_attn.weight": "repair", "transformer.h.0.attn.c_attn.bias": "keep"},
        "qwen3_moe": {
            "model.layers.1.mlp.experts.3.down_proj.weight": "keep",
            "model.layers.0.mlp.gate.weight": "keep",
        },
        "qwen3_moe_fused": {"model.layers.1.mlp.experts.gate_up_proj": "repair"},
        "vit": {"vit.embeddings.patch_embeddings.projection.weight": "repair", "vit.embeddings.cls_token": "keep"},
    }[family]
    assert expected.items() <= actions.items()
    assert ("lm_head.weight" in actions) == (family in ("llama_untied", "qwen3_moe", "qwen3_moe_fused"))


def test_different_dtypes_and_configs_may_pair(tmp_path):
    tensors = random_tensors()
    base = write_checkpoint(tmp_path / "b", tensors, {"model_type": "llama"})
    halves = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    tuned = write_checkpoint(
        tmp_path / "t", planted_update(halves), {"model_type": "mistral", "architectures": ["X"]}
    )
    pair = open_pair(base, tuned)
    assert_complete(pair)
    assert pair["model.pos"].base.dtype == "float32" and pair["model.pos"].tuned.dtype == "bfloat16"


def test_an_integer_on_either_side_is_kept(tmp_path):
    tensors = {"w": torch.randn(32, 32), "m": torch.zeros(32, 32)}
    base = write_checkpoint(tmp_path / "b", tensors | {"m": torch.zeros(32, 32, dtype=torch.bool)})
    pair = open_pair(base, write_checkpoint(tmp_path / "t", tensors))
    assert pair["m"].reason == "Not floating point (bool in base), so there is no spectrum."


def test_a_pair_is_a_plain_value(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    assert pickle.loads(pickle.dumps(pair)) == pair
    assert pair_checkpoints(pair.base, pair.tuned) == pair


def test_looking_up_a_name(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    assert pair["model.pos"].name == "model.pos"
    with pytest.raises(PairError, match=r"no tensor 'model.poss' among the 11 of .*; did you mean 'model.pos'"):
        pair["model.poss"]


# --- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "action"),
    [
        ({"tie_word_embeddings": True}, "repair"),
        ({"text_config": {"tie_word_embeddings": True}}, "repair"),
        ({"architectures": ["GPT2LMHeadModel"]}, "repair"),
        ({"architectures": ["GPT2LMHeadModel"], "tie_word_embeddings": False}, "keep"),
        ({"architectures": ["LlamaModel"]}, "keep"),
        (None, "keep"),
    ],
)
def test_a_head_stored_by_tuned_only_is_the_embedding_of_a_tied_base(tmp_path, config, action):
    base = random_tensors()
    tuned = planted_update(base)
    tuned["lm_head.weight"] = tuned["model.embed_tokens.weight"] * 2
    pair = open_pair(write_checkpoint(tmp_path / "b", base, config), write_checkpoint(tmp_path / "t", tuned, config))
    assert_complete(pair)
    head = pair["lm_head.weight"]
    assert head.action == action
    if action == "repair":
        assert head.base == pair["model.embed_tokens.weight"].base
        assert head.reason == "A floating-point matrix; base ties it to model.embed_tokens.weight, of the same shape."


def test_a_head_is_not_given_to_one_of_two_embeddings(tmp_path):
    base = random_tensors() | {"model.encoder.embed_tokens.weight": torch.randn(96, 32)}
    tuned = planted_update(base) | {"lm_head.weight": torch.randn(96, 32)}
    config = {"tie_word_embeddings": True}
    pair = open_pair(write_checkpoint(tmp_path / "b", base, config), write_checkpoint(tmp_path / "t", tuned, config))
    assert pair["lm_head.weight"].reason == "Only in tuned, so there is no delta."


# --- refusals -------------------------------------------------------------------------------------------------------


def test_shape_mismatches(tmp_path):
    names = [f"layer.{i}.w" for i in range(5)]
    base = write_checkpoint(
        tmp_path / "b", {name: torch.zeros(32, 40) for name in names} | {"same": torch.zeros(64, 64)}
    )
    tensors = {name: torch.ones(32, 48) for name in names[:4]} | {"layer.4.w": torch.ones(32, 40)}
    tuned = write_checkpoint(tmp_path / "t", tensors | {"same": torch.ones(64, 64)})
    message = refusal(base, tuned)
    assert "4 of 6 common tensors differ in shape: 'layer.0.w' is (32, 40) in base (" in message
    assert f"({base / 'model.safetensors'}) and (32, 48) in tuned ({tuned / 'model.safetensors'})" in message
    assert "'layer.2.w'" in message and "'layer.3.w'" not in message and "; and 1 more." in message
    assert "Is this the base it was tuned from?" in message
    pattern = message.partition("--exclude ")[2]
    assert open_pair(base, tuned, exclude=shlex.split(pattern)[0]).counts() == {
        "repair": 2,
        "keep": 4,
        "base_only": 0,
    }


def test_the_remedy_for_a_mismatch_works(tmp_path):
    base, tuned = random_tensors(), planted_update(random_tensors())
    tuned["model.embed_tokens.weight"] = torch.randn(100, 32)
    paths = write_checkpoint(tmp_path / "b", base), write_checkpoint(tmp_path / "t", tuned)
    (pattern,) = shlex.split(refusal(*paths).partition("--exclude ")[2])
    pair = open_pair(*paths, exclude=pattern)
    assert_complete(pair)
    assert pair["model.embed_tokens.weight"].action == "keep"
    assert pair.counts() == {"repair": 5, "keep": 6, "base_only": 0}
    assert open_pair(*paths, include="layers")["model.embed_tokens.weight"].reason == "Not selected by --include."
    assert "differ in shape" in refusal(*paths, exclude="layers")


def test_a_vector_of_another_length_is_a_mismatch_too(tmp_path):
    tensors = {"w": torch.randn(32, 32), "b": torch.zeros(4)}
    paths = (
        write_checkpoint(tmp_path / "b", tensors),
        write_checkpoint(tmp_path / "t", tensors | {"b": torch.zeros(5)}),
    )
    assert "'b' is (4,) in base" in refusal(*paths)


def test_no_common_name(tmp_path):
    base = write_checkpoint(tmp_path / "b", {"model.w": torch.zeros(32, 32)})
    tuned = write_checkpoint(tmp_path / "t", {"w": torch.zeros(32, 32)})
    message = refusal(base, tuned)
    assert f"no tensor name is in both {base} (such as 'model.w') and {tuned} (such as 'w')" in message


def test_nothing_to_repair(tmp_path):
    tensors = {"a": torch.zeros(5), "b": torch.zeros(6), "c": torch.zeros(4, 4)}
    message = refusal(write_checkpoint(tmp_path / "b", tensors), write_checkpoint(tmp_path / "t", tensors))
    assert "(2 times: Not a matrix: fewer than two dimensions longer than one; 1 times: Small: fewer" in message
    base, tuned = write_pair(tmp_path)
    assert "11 times: Not selected by --include" in refusal(base, tuned, include="nothing like this")
    assert "11 times: Excluded by --exclude" in refusal(base, tuned, exclude=".")


def test_an_empty_expression_is_none(tmp_path):
    base, tuned = write_pair(tmp_path)
    assert open_pair(base, tuned, include="", exclude="") == open_pair(base, tuned)


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_bad_expression(tmp_path, option):
    message = refusal(*write_pair(tmp_path), **{option: "layers.(1"})
    assert message.startswith(f"--{option}: 'layers.(1' is not a regular expression of RE2 (missing )")


def test_the_same_checkpoint_twice(tmp_path):
    base, tuned = write_pair(tmp_path, shards=2)
    (tmp_path / "link").symlink_to(base)
    for same in (base, base / "model-00001-of-00002.safetensors", tmp_path / "link"):
        assert "base and tuned are the same weights" in refusal(base, same)
    # One blob shared by two snapshots of a hub cache is no fault.
    blobs = tmp_path / "cache" / "blobs"
    shutil.copytree(base, blobs)
    for side in (base, tuned):
        shutil.copytree(side, tmp_path / "cache" / "snapshots" / side.name)
        shared = tmp_path / "cache" / "snapshots" / side.name / "model-00001-of-00002.safetensors"
        shared.unlink()
        shared.symlink_to(blobs / shared.name)
    assert_complete(open_pair(*(tmp_path / "cache" / "snapshots" / side for side in ("base", "tuned"))))


def test_a_checkpoint_that_vanishes_before_pairing(tmp_path):
    base, tuned = map(open_checkpoint, write_pair(tmp_path))
    shutil.rmtree(base.path)
    with pytest.raises(CheckpointError, match=r"has changed since it was opened \(No such file.*open it again"):
        pair_checkpoints(base, tuned)


# --- quantised ------------------------------------------------------------------------------------------------------

CODES = torch.zeros(32, 64, dtype=torch.int32)


@pytest.mark.parametrize("side", ["base", "tuned"])
@pytest.mark.parametrize(
    ("config", "extra", "sign"),
    [
        (
            {"quantization_config": {"quant_method": "gptq"}},
            {"l.qweight": CODES},
            "quantization_config in config.json says 'gptq'",
        ),
        (
            {"quantization_config": {"load_in_4bit": True}},
            {"l.weight": CODES.to(torch.uint8)},
            "quantization_config in config.json says 'unnamed'",
        ),
        (
            {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
            {"l.weight": torch.ones(32, 64).to(torch.float8_e4m3fn)},
            "quantization_config in config.json's text_config says 'fp8'",
        ),
        ({}, {"l.qweight": CODES}, "tensor 'l.qweight' is a mark of GPTQ or AWQ"),
        ({}, {"l.qzeros": CODES}, "tensor 'l.qzeros' is a mark of GPTQ or AWQ"),
        ({}, {"l.weight_packed": CODES}, "'l.weight_packed' is a mark of compressed-tensors"),
        ({}, {"l.weight_scale_inv": torch.ones(2, 2)}, "'l.weight_scale_inv' is a mark of FP8 blocks"),
        ({}, {"l.weight.absmax": torch.ones(9)}, "'l.weight.absmax' is a mark of bitsandbytes 4-bit"),
        ({}, {"l.weight.quant_state.bitsandbytes__nf4": torch.ones(9)}, "is a mark of bitsandbytes 4-bit"),
        ({}, {"l.SCB": torch.ones(9)}, "'l.SCB' is a mark of bitsandbytes 8-bit"),
        ({}, {"l.up_blocks": CODES, "l.up_scales": CODES + 1}, "'l.up_blocks' with its _scales is MXFP4"),
        ({}, {"l.weight": CODES.to(torch.uint8)}, "'l.weight' is a weight stored as uint8"),
    ],
)
def test_quantised_checkpoints_are_refused_by_name(tmp_path, side, config, extra, sign):
    tensors = random_tensors()
    paths = {}
    for role in ("base", "tuned"):
        own = (config, tensors | extra) if role == side else ({}, tensors)
        paths[role] = write_checkpoint(tmp_path / role, own[1], own[0])
    message = refusal(paths["base"], paths["tuned"], kind=CheckpointError)
    assert message.startswith(f"the {side} checkpoint {paths[side]} is quantised (") and sign in message


def test_what_only_looks_quantised_passes(tmp_path):
    tensors = random_tensors() | {
        "h.0.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8),  # GPT-2's causal mask
        "layer.scales": torch.ones(9),
        "conv_blocks": torch.ones(9),
        "ids.weight": torch.ones(2048, dtype=torch.int32),
    }
    config = {"quantization_config": None, "text_config": {"quantization_config": {}}}
    base = write_checkpoint(tmp_path / "b", tensors, config)
    assert_complete(open_pair(base, write_checkpoint(tmp_path / "t", planted_update(tensors), config)))


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_float8_is_refused_unless_excluded(tmp_path, side):
    tensors = {"a.w": torch.rand(32, 32), "b": torch.randn(32, 32)}
    eights = tensors | {"a.w": tensors["a.w"].to(torch.float8_e8m0fnu)}
    base = write_checkpoint(tmp_path / "b", eights if side == "base" else tensors)
    tuned = write_checkpoint(tmp_path / "t", eights if side == "tuned" else tensors)
    message = refusal(base, tuned)
    assert f"tensor 'a.w' is float8_e8m0fnu in {side} (" in message
    assert message.endswith("or keep tuned's bytes with --exclude '^(?:a\\.w)$'")
    assert open_pair(base, tuned, exclude=r"^(?:a\.w)$").counts() == {"repair": 1, "keep": 1, "base_only": 0}


# --- layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "stacked", "expected"),
    [
        ((3, 5), False, (None, 3, 5)),
        ((1, 3, 1, 5), False, (None, 3, 5)),
        ((64, 1, 4), True, (None, 64, 4)),
        ((8, 3, 2, 2, 2), False, (None, 8, 24)),
        ((4, 6, 7), True, (4, 6, 7)),
        ((4, 6), True, (None, 4, 6)),
        ((1, 4, 6, 7), True, (4, 6, 7)),
        ((4, 6, 7, 2), True, (None, 4, 84)),
        ((4, 6, 7), False, (None, 4, 42)),
    ],
)
def test_matrix_layout(shape, stacked, expected):
    layout = matrix_layout(shape, stacked)
    assert (layout.stack, layout.rows, layout.cols) == expected


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (5, 1, 1), (0, 5), (3, 0, 2)])
def test_no_matrix(shape):
    assert matrix_layout(shape, True) is None


@given(stacked=st.booleans(), shape=st.lists(st.integers(1, 6), max_size=6))
def test_a_layout_holds_every_element(stacked, shape):
    layout = matrix_layout(shape, stacked)
    longer = [length for length in shape if length > 1]
    assert (layout is None) == (len(longer) < 2)
    if layout is not None:
        assert (layout.stack or 1) * layout.rows * layout.cols == torch.Size(shape).numel()
        assert layout.rows > 1 and layout.cols > 1
