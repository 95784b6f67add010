"""Three dimensions: a stack of matrices under any name, a convolution's kernel, or one matrix over heads."""

from pathlib import Path

import pytest
import torch

from dgviz.checkpoint import Checkpoint, TensorInfo, open_pair
from dgviz.checkpoint.stacks import Surroundings
from tests.checkpoints import planted_update, write_checkpoint


def is_stack(name, shape, others=None, config=None):
    shapes = {name: shape} | (others or {})
    tensors = {key: TensorInfo(key, value, "float32", Path("x"), 0, 0) for key, value in shapes.items()}
    return Surroundings(Checkpoint(Path("x"), tensors, config or {}, (), "")).is_stack(tensors[name])


LAYER = {"norm.weight": (64,), "mlp.up.weight": (128, 64)}


@pytest.mark.parametrize(
    ("name", "shape", "others", "config", "expected"),
    [
        ("block_sparse_moe.input_linear.weight", (4, 128, 64), LAYER, {}, True),  # GraniteMoe
        ("mlp.shared_experts.gate_proj", (2, 48, 32), {}, {}, True),
        ("moe.gate_proj.weight", (4, 48, 32), {}, {}, True),  # step3
        ("codebooks_head.weight", (7, 32, 96), {}, {}, True),  # CSM
        ("depth.layers.0.mlp.fc1.weight", (8, 128, 64), LAYER | {"gate.e_score": (8,)}, {}, True),  # Moshi
        ("mlp.experts.down_proj", (4, 6, 7), {}, {}, True),
        ("moe.w1", (4, 12, 8), {"up.weight": (16, 8)}, {}, True),  # as narrow as a kernel, but so are the matrices
        ("time_maa_w2", (5, 32, 64), LAYER, {}, True),  # RWKV 6
        ("encoder.conv1.weight", (384, 80, 3), {}, {}, False),  # Whisper
        ("pos_conv_embed.weight_v", (64, 4, 128), {}, {}, False),
        ("net.0.weight", (64, 32, 5), {}, {}, False),
        ("net.3.weight", (64, 32, 4), {"net.3.bias": (64,)}, {}, False),
        ("up.1.weight", (64, 32, 8), {"up.1.bias": (32,)}, {}, False),  # transposed
        ("net.3.weight", (64, 32, 10), {}, {"conv_kernel": [10, 3, 3]}, False),
        ("down.1.weight", (64, 32, 24), {"down.0.weight": (64, 32, 3, 3)}, {}, False),
        ("layer.0.rel_attn.q", (64, 4, 16), {"norm.weight": (64,), "r_w_bias": (4, 16)}, {}, False),  # XLNet
        ("net.3.weight", (64, 32, 4), {}, {}, None),
        ("w.weight", (32, 4, 3, 3), {}, {}, False),
        ("w.weight", (1, 64, 32), {}, {}, False),
    ],
)
def test_what_three_dimensions_are(name, shape, others, config, expected):
    assert is_stack(name, shape, others, config) is expected


def test_what_cannot_be_told_is_left_as_tuned_and_said(tmp_path):
    tensors = {"net.3.weight": torch.randn(64, 32, 4), "up.weight": torch.randn(64, 48)}
    base = write_checkpoint(tmp_path / "b", tensors)
    pair = open_pair(base, write_checkpoint(tmp_path / "t", planted_update(tensors)))
    row = pair["net.3.weight"]
    assert (row.action, row.cause) == ("keep", "layout") and "nothing tells which" in row.reason
