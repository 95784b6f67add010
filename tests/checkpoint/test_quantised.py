"""FP8-block and MXFP4 bases are read as the numbers they stand for; every other quantisation is refused."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dgviz.checkpoint import content_hash, open_checkpoint, open_pair, read_bytes, read_tensor
from dgviz.checkpoint.quantised import dequantised
from dgviz.errors import CheckpointError, PairError
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.weight import Weight
from tests.checkpoints import random_tensors, tiny_model, tune, write_checkpoint

FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 8]}, "dtype": "bfloat16"}
MXFP4 = {"quantization_config": {"quant_method": "mxfp4"}, "torch_dtype": "float32"}
FP4_VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def float8_blocks(weight: torch.Tensor, rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a matrix to float8 with one scale per block, as DeepSeek's kernel does; element by element."""
    grid = -(-weight.shape[0] // rows), -(-weight.shape[1] // cols)
    scales, codes = torch.empty(grid), torch.empty_like(weight)
    for i in range(grid[0]):
        for j in range(grid[1]):
            block = weight[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols]
            scales[i, j] = block.abs().max() / 448 if block.abs().max() > 0 else 1
            codes[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols] = block / scales[i, j]
    return codes.to(torch.float8_e4m3fn), scales


def float8_reference(codes: torch.Tensor, scales: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """Return code times scale of every element in float64."""
    row, col = torch.arange(codes.shape[0]) // rows, torch.arange(codes.shape[1]) // cols
    return codes.double() * scales.double()[row][:, col]


def microscaled_reference(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return the values of MXFP4 experts in float64, byte by byte: (experts, columns, rows)."""
    experts, rows, groups, width = blocks.shape
    out = torch.empty(experts, rows, groups * width * 2, dtype=torch.float64)
    for position in range(width):
        for half in range(2):
            code = (blocks[..., position] >> (4 * half)) & 15
            value = torch.tensor(FP4_VALUES, dtype=torch.float64)[(code & 7).long()] * (1 - 2 * (code >> 3).double())
            out[:, :, torch.arange(groups) * width * 2 + 2 * position + half] = value * 2.0 ** (scales.double() - 127)
    return out.transpose(1, 2)


def refusal(*paths, kind=CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        open_pair(*paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- FP8 blocks -----------------------------------------------------------------------------------------------------


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), block=st.tuples(st.integers(1, 48), st.integers(1, 48))
)
def test_float8_blocks_of_any_size_are_codes_times_scales(tmp_path_factory, shape, block):
    weight = torch.randn(shape)
    codes, scales = float8_blocks(weight, *block)
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": list(block)}, "dtype": "float32"}
    tensors = {"w": codes, "w_scale_inv": scales}
    dense = dequantised(open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("m"), tensors, config)), "base")
    assert list(dense.tensors) == ["w"]
    value = read_tensor(dense.tensors["w"])
    assert torch.equal(value, float8_reference(codes, scales, *block).float())
    assert (value - weight).abs().max() <= weight.abs().max() / 16


def float8_pair(directory, block=(16, 8)):
    """Write a base with two weights in float8 blocks, and a dense tuned model that began at their values."""
    tensors = random_tensors()
    names = ["model.layers.2.mlp.up.weight", "model.layers.10.mlp.up.weight"]
    quantised, dense = dict(tensors), {name: value.bfloat16() for name, value in tensors.items() if value.dim() > 1}
    for name in names:
        codes, scales = float8_blocks(tensors[name], *block)
        quantised |= {name: codes, f"{name}_scale_inv": scales}
        dense[name] = float8_reference(codes, scales, *block).bfloat16()
    start = {name: value.float() for name, value in dense.items()}
    dense[names[0]] = (start[names[0]] + 0.01 * torch.ones(64, 1) @ torch.ones(1, 32)).bfloat16()
    base = write_checkpoint(directory / "b", quantised, FP8)
    return base, write_checkpoint(directory / "t", dense), start, dense, names


def test_a_float8_base_with_a_dense_tuned_model(tmp_path):
    base, tuned, start, dense, names = float8_pair(tmp_path)
    pair = open_pair(base, tuned)
    assert all(pair[name].action == "repair" for name in names)
    assert not any(row.name.endswith("_scale_inv") for row in pair.tensors)
    assert torch.equal(compute_delta(Weight(pair[names[0]]), "cpu"), dense[names[0]].float() - start[names[0]])
    # Untouched, a weight has an update of exactly zero: its start is rounded as loading it would.
    assert compute_delta(Weight(pair[names[1]]), "cpu").count_nonzero() == 0
    plan = plan_export(pair, RepairPlan("fixed_rank", {"rank": 0}), tmp_path / "out")
    list(iter_export(plan, "cpu"))
    written = open_checkpoint(tmp_path / "out")
    assert torch.equal(read_tensor(written.tensors[names[0]]).float(), start[names[0]])
    assert written.tensors.keys() == open_checkpoint(tuned).tensors.keys()


def test_the_bytes_and_the_hash_of_a_dequantised_weight(tmp_path):
    base, _, start, _, names = float8_pair(tmp_path)
    info = dequantised(open_checkpoint(base), "base").tensors[names[0]]
    assert info.dtype == "bfloat16" and info.nbytes == 64 * 32 * 2
    assert read_bytes(info) == start[names[0]].bfloat16().view(torch.uint8).numpy().tobytes()
    first = content_hash(info)
    config = FP8 | {"dtype": "float32"}
    (base / "config.json").write_text(json.dumps(config))
    assert content_hash(dequantised(open_checkpoint(base), "base").tensors[names[0]]) != first


def test_float8_agrees_with_transformers():
    finegrained = pytest.importorskip("transformers.integrations.finegrained_fp8")
    if not hasattr(finegrained.Fp8Dequantize, "_dequantize_one"):
        pytest.skip("this transformers dequantises in one piece with its loading")
    codes, scales = float8_blocks(torch.randn(64, 48), 16, 8)
    theirs = finegrained.Fp8Dequantize(None)._dequantize_one(codes, scales, output_dtype=torch.float32)
    assert torch.equal(theirs, float8_reference(codes, scales, 16, 8).float())


@pytest.mark.parametrize(
    ("scale", "config", "complaint"),
    [
        (torch.ones(4, 3), FP8, "need floating-point scales of shape (4, 4), but"),
        (torch.ones(4), FP8, "'w_scale_inv' is float32 of shape (4,)"),
        (torch.ones(4, 4, dtype=torch.int32), FP8, "'w_scale_inv' is int32"),
        (torch.ones(1, 1), {"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 8]}}, "[0, 8]"),
        (
            torch.ones(1, 1),
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": "x"}},
            "= 'x', not two",
        ),
    ],
)
def test_scales_that_do_not_fit(tmp_path, scale, config, complaint):
    tensors = {"w": torch.zeros(64, 32, dtype=torch.float8_e4m3fn), "w_scale_inv": scale}
    tuned = write_checkpoint(tmp_path / "t", {"w": torch.zeros(64, 32)})
    assert complaint in refusal(write_checkpoint(tmp_path / "b", tensors, config), tuned)


# --- MXFP4 ----------------------------------------------------------------------------------------------------------


def random_codes(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return blocks (..., 16) and scales (...) of MXFP4, all codes among them."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
    return blocks, torch.randint(115, 125, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("experts", [1, 3])
def test_mxfp4_is_codes_times_powers_of_two(tmp_path, experts, dtype):
    blocks, scales = random_codes(0, experts, 6, 2)
    tensors = {"mlp.experts.down_proj_blocks": blocks, "mlp.experts.down_proj_scales": scales}
    base = open_checkpoint(write_checkpoint(tmp_path / "m", tensors, MXFP4 | {"torch_dtype": dtype}))
    info = dequantised(base, "base").tensors["mlp.experts.down_proj"]
    reference = microscaled_reference(blocks, scales)
    assert info.shape == (experts, 64, 6) and info.dtype == dtype
    assert torch.equal(read_tensor(info).double(), reference)  # exact in either
    for expert in range(experts):
        assert torch.equal(read_tensor(info, expert).double(), reference[expert])
    with pytest.raises(IndexError):
        read_tensor(info, experts)


def test_mxfp4_agrees_with_transformers():
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks, scales = random_codes(1, 3, 6, 2)
    theirs = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert torch.equal(theirs.double(), microscaled_reference(blocks, scales))


def test_a_gpt_oss_base_in_mxfp4(tmp_path):
    """The whole way: experts as codes in base, dense in tuned; the output loads in transformers."""
    model = tiny_model("gpt_oss")
    model.save_pretrained(tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    state, quantised = model.state_dict(), {}
    for number, (name, value) in enumerate(state.items()):
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, cols, rows = value.shape
            blocks, scales = random_codes(number, experts, rows, cols // 32)
            quantised |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            state[name] = microscaled_reference(blocks, scales).float()
        else:
            quantised[name] = value
    base = write_checkpoint(tmp_path / "base", quantised, config | MXFP4)
    model.load_state_dict(state)
    tune(model).save_pretrained(tmp_path / "tuned")
    pair = open_pair(base, tmp_path / "tuned")
    assert pair.counts()["base_only"] == 0 and all(row.base is not None for row in pair.tensors)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    tuned = model.state_dict()[name]
    for expert in range(4):
        assert torch.equal(compute_delta(Weight(pair[name], expert), "cpu"), tuned[expert] - state[name][expert])
    list(iter_export(plan_export(pair, RepairPlan("fixed_rank", {"rank": 2}), tmp_path / "out"), "cpu"))
    again, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}
    delta = tuned.double() - state[name].double()
    left, s, right = torch.linalg.svd(delta, full_matrices=False)
    expected = state[name].double() + (left[..., :2] * s[:, None, :2]) @ right[:, :2]
    torch.testing.assert_close(again.state_dict()[name].double(), expected, rtol=0, atol=1e-6)


def test_mxfp4_that_does_not_fit(tmp_path):
    tuned = write_checkpoint(tmp_path / "t", {"experts.up": torch.zeros(2, 64, 32)})
    blocks, scales = random_codes(0, 2, 32, 2)
    for tensors in (
        {"experts.up_blocks": blocks, "experts.up_scales": scales[:, :4]},
        {"experts.up_blocks": blocks[..., :8], "experts.up_scales": scales},
    ):
        message = refusal(write_checkpoint(tmp_path / "b", tensors, MXFP4), tuned)
        assert "MXFP4 experts are (experts, rows, groups, 16)" in message
    twice = {"experts.up_blocks": blocks, "experts.up_scales": scales, "experts.up": torch.zeros(2, 64, 32)}
    assert "both in MXFP4 and as it is" in refusal(write_checkpoint(tmp_path / "b", twice, MXFP4), tuned)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_quantised_tuned_model_is_refused(tmp_path):
    base, tuned, *_ = float8_pair(tmp_path)
    assert f"the tuned checkpoint {base} is quantised (quantization_config" in refusal(tuned, base)


def test_other_methods_beside_readable_codes_are_refused(tmp_path):
    base, tuned, *_ = float8_pair(tmp_path)
    config = {"quantization_config": {"quant_method": "compressed-tensors"}}
    (base / "config.json").write_text(json.dumps(config))
    assert "says 'compressed-tensors'" in refusal(base, tuned)
    (base / "config.json").write_text(json.dumps(FP8))
    tensors = {name: read_tensor(info) for name, info in open_checkpoint(base).tensors.items()}
    mixed = write_checkpoint(tmp_path / "x", tensors | {"l.qweight": torch.zeros(64, 64, dtype=torch.int32)}, FP8)
    assert "'l.qweight' is a mark of GPTQ or AWQ" in refusal(mixed, tuned)
    del tensors["model.layers.2.mlp.up.weight_scale_inv"]
    alone = write_checkpoint(tmp_path / "y", tensors, FP8)
    assert "tensor 'model.layers.2.mlp.up.weight' is float8_e4m3fn in base" in refusal(alone, tuned, kind=PairError)


# --- scales of other shapes, casts, and what only the config says ---------------------------------------------------


def scaled(weight, shape):
    """Quantise to float8 with scales of a shape that broadcasts, and return the values in float64."""
    dims = [dim for dim in range(weight.dim()) if len(shape) < weight.dim() or shape[dim] == 1]
    scale = weight.abs().amax(dim=dims, keepdim=True) / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    return codes, scale.reshape(shape), codes.double() * scale.double()


@pytest.mark.parametrize(
    ("shape", "scales", "end", "method"),
    [
        ((64, 32), (), "_scale_inv", "fp8"),
        ((64, 32), (1,), "_scale_inv", "fp8"),
        ((64, 32), (64, 1), "_scale_inv", "fp8"),
        ((64, 32), (64, 1), "_scale", "fbgemm_fp8"),
        ((64, 32), (64, 1), "_scale", "compressed-tensors"),
        ((64, 32), (1,), "_scale", "modelopt"),
        ((3, 64, 32), (3, 64, 1), "_scale_inv", "fp8"),
    ],
)
def test_scales_of_any_shape_are_read_and_activations_left_out(tmp_path, shape, scales, end, method):
    weight = 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    codes, scale, values = scaled(weight, scales)
    name = "layers.0.mlp.experts.w" if len(shape) == 3 else "layers.0.up.weight"
    beside = {
        f"{name.rpartition('.')[0]}.{extra}": torch.tensor(0.02) for extra in ("activation_scale", "input_scale")
    }
    config = {"quantization_config": {"quant_method": method, "weight_block_size": None}, "dtype": "float32"}
    tensors = {name: codes, f"{name}{end}": scale} | beside
    update = 0.01 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    pair = open_pair(
        write_checkpoint(tmp_path / "b", tensors, config),
        write_checkpoint(tmp_path / "t", {name: values.float() + update}, {"dtype": "float32"}),
    )
    assert [row.name for row in pair.tensors] == [name] and pair[name].action == "repair"
    assert (read_tensor(pair[name].base).double() - values).abs().max() <= 1e-7 * values.abs().max()
    if len(shape) == 3:
        assert torch.equal(read_tensor(pair[name].base, 1), read_tensor(pair[name].base)[1])


def test_plain_casts_to_float8_mean_themselves(tmp_path):
    weight = 0.05 * torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    base, tuned = weight.to(torch.float8_e4m3fn), (1.3 * weight).to(torch.float8_e5m2)
    paths = [write_checkpoint(tmp_path / side, {"up.weight": value}) for side, value in (("b", base), ("t", tuned))]
    pair = open_pair(*paths)
    assert torch.equal(compute_delta(Weight(pair["up.weight"]), "cpu"), tuned.float() - base.float())
    list(iter_export(plan_export(pair, RepairPlan("fixed_rank", {"rank": 64}), tmp_path / "out"), "cpu"))
    written = read_tensor(open_checkpoint(tmp_path / "out").tensors["up.weight"])
    assert written.dtype == torch.bfloat16 and torch.equal(written.float(), tuned.float())


@pytest.mark.parametrize("method", ["bitsandbytes", "fp8", "gptq", "awq", "torchao"])
def test_numbers_under_a_config_that_says_codes_are_numbers(tmp_path, method):
    config = {"quantization_config": {"quant_method": method}, "text_config": {"quantization_config": {"bits": 4}}}
    tensors = {"up.weight": torch.randn(64, 32, generator=torch.Generator().manual_seed(0))}
    paths = write_checkpoint(tmp_path / "b", tensors, config), write_checkpoint(tmp_path / "t", tensors, config)
    pair = open_pair(*paths)
    assert [notice.code for notice in pair.notices] == ["unchanged", "stale_quantization"]
    list(iter_export(plan_export(pair, RepairPlan(), tmp_path / "out"), "cpu"))
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize(
    "extra",
    [
        {"layers.0.up.W_q": torch.zeros(64, 32, dtype=torch.uint8), "layers.0.up.scale": torch.ones(64, 1)},  # HQQ
        {
            "layers.0.up.weight._data": torch.zeros(64, 32, dtype=torch.int8),
            "layers.0.up.weight._scale": torch.ones(64),
        },
        {
            "layers.0.up.codes": torch.zeros(64, 32, dtype=torch.int16),
            "layers.0.up.codebooks": torch.ones(2, 8),
        },  # AQLM
        {"layers.0.up.weight": torch.zeros(1024, 1, dtype=torch.uint8)},
    ],
)
def test_packed_codes_are_never_taken_for_weights(tmp_path, extra):
    other = {"layers.0.down.weight": torch.randn(32, 64, generator=torch.Generator().manual_seed(0))}
    codes = {f"layers.0.up.{name}": value for name, value in extra.items()}
    base = write_checkpoint(tmp_path / "b", other | {"layers.0.up.weight": torch.randn(64, 32)})
    assert "is quantised (tensor" in refusal(base, write_checkpoint(tmp_path / "t", other | codes))


def test_whole_numbers_in_place_of_a_weight_are_codes(tmp_path):
    base = write_checkpoint(tmp_path / "b", {"w": torch.randn(64, 32), "v": torch.ones(64, 32)})
    tuned = write_checkpoint(tmp_path / "t", {"w": torch.zeros(64, 32, dtype=torch.int8), "v": torch.ones(64, 32)})
    assert "'w' is int8 in tuned" in refusal(base, tuned) and "codes" in refusal(base, tuned)
