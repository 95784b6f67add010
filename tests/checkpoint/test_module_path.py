"""Names of real checkpoints: tower, layer, module, expert and class, for every family; and what is built on them."""

import re

import pytest
import torch

from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_map import map_tower, towers
from dgviz.checkpoint import open_pair
from dgviz.checkpoint.module_path import (
    CLASSES,
    OTHER,
    block_depths,
    module_order,
    module_path,
    tower_labels,
)
from dgviz.checkpoint.selection import expression_of
from dgviz.spectra.weight import weights_of
from tests.checkpoints import ARCHITECTURES, tiny_model

REAL = """
model.layers.61.block_sparse_moe.experts.3.w1.weight | model.layers | 61 | block_sparse_moe.experts.w1 | 3 | experts
model.layers.3.mlp.experts.255.down_proj.weight | model.layers | 3 | mlp.experts.down_proj | 255 | experts
model.layers.3.mlp.experts.gate_up_proj | model.layers | 3 | mlp.experts.gate_up_proj | None | experts
model.layers.3.block_sparse_moe.gate.weight | model.layers | 3 | block_sparse_moe.gate | None | router
model.layers.3.mlp.router.weight | model.layers | 3 | mlp.router | None | router
model.layers.0.mlp.shared_experts.up_proj.weight | model.layers | 0 | mlp.shared_experts.up_proj | None | MLP
model.layers.0.self_attn.kv_a_proj_with_mqa.weight | model.layers | 0 | self_attn.kv_a_proj_with_mqa | None | attention
bert.encoder.layer.11.attention.output.dense.weight | bert.encoder.layer | 11 | attention.output.dense | None | attention
bert.encoder.layer.11.output.dense.weight | bert.encoder.layer | 11 | output.dense | None | MLP
distilbert.transformer.layer.0.attention.q_lin.weight | distilbert.transformer.layer | 0 | attention.q_lin | None | attention
vit.encoder.layer.0.attention.attention.query.weight | vit.encoder.layer | 0 | attention.attention.query | None | attention
transformer.h.0.attn.c_attn.weight | transformer.h | 0 | attn.c_attn | None | attention
h.3.mlp.c_proj.weight | h | 3 | mlp.c_proj | None | MLP
transformer.h.0.self_attention.query_key_value.weight | transformer.h | 0 | self_attention.query_key_value | None | attention
gpt_neox.layers.0.mlp.dense_4h_to_h.weight | gpt_neox.layers | 0 | mlp.dense_4h_to_h | None | MLP
model.decoder.layers.0.fc1.weight | model.decoder.layers | 0 | fc1 | None | MLP
model.layers.0.attn.Wqkv.weight | model.layers | 0 | attn.Wqkv | None | attention
layers.0.attention.wq.weight | layers | 0 | attention.wq | None | attention
layers.0.feed_forward.w1.weight | layers | 0 | feed_forward.w1 | None | MLP
swin.encoder.layers.0.blocks.1.attention.self.query.weight | swin.encoder.layers | 0.1 | blocks.attention.self.query | None | attention
encoder.block.3.layer.1.DenseReluDense.wi_0.weight | encoder.block | 3 | DenseReluDense.wi_0 | None | MLP
decoder.block.3.layer.1.EncDecAttention.q.weight | decoder.block | 3 | EncDecAttention.q | None | attention
decoder.block.3.layer.2.mlp.experts.expert_7.wi.weight | decoder.block | 3 | mlp.experts.wi | 7 | experts
vision_model.encoder.layers.2.mlp.fc1.weight | vision_model.encoder.layers | 2 | mlp.fc1 | None | MLP
visual.transformer.resblocks.3.attn.in_proj_weight | visual.transformer.resblocks | 3 | attn.in_proj_weight | None | attention
model.visual.merger.mlp.0.weight |  |  | model.visual.merger.mlp.0 | None | MLP
down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q.weight | down_blocks | 0.1.0 | attentions.transformer_blocks.attn1.to_q | None | attention
down_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj.weight | down_blocks | 0.1.0 | attentions.transformer_blocks.ff.net.0.proj | None | MLP
down_blocks.0.resnets.1.conv1.weight | down_blocks | 0.1 | resnets.conv1 | None | convolution
single_transformer_blocks.3.proj_mlp.weight | single_transformer_blocks | 3 | proj_mlp | None | MLP
backbone.layers.0.mixer.in_proj.weight | backbone.layers | 0 | mixer.in_proj | None | state space
rwkv.blocks.0.feed_forward.key.weight | rwkv.blocks | 0 | feed_forward.key | None | MLP
wav2vec2.feature_extractor.conv_layers.2.conv.weight | wav2vec2.feature_extractor.conv_layers | 2 | conv | None | convolution
mtp.layers.0.self_attn.q_proj.weight | mtp.layers | 0 | self_attn.q_proj | None | attention
model.embed_tokens.weight |  |  | model.embed_tokens | None | embedding
transformer.wte.weight |  |  | transformer.wte | None | embedding
shared.weight |  |  | shared | None | embedding
bert.embeddings.word_embeddings.weight |  |  | bert.embeddings.word_embeddings | None | embedding
lm_head.weight |  |  | lm_head | None | head
proj_out.weight |  |  | proj_out | None | head
cls.predictions.transform.dense.weight |  |  | cls.predictions.transform.dense | None | head
classifier.weight |  |  | classifier | None | head
conv_in.weight |  |  | conv_in | None | convolution
weight |  |  | weight | None | other
. |  |  | . | None | other
"""  # fmt: skip  # noqa: E501
CASES = [[part.strip() for part in line.split("|")] for line in REAL.strip().splitlines()]
LAYERED = {"attention", "MLP", "experts", "router", "state space"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_names_of_real_checkpoints(case):
    place = module_path(case[0])
    assert [place.tower, place.level, place.module, str(place.expert), place.kind] == case[1:]


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_matrix_of_every_architecture_has_a_place(family):
    model = tiny_model(family)
    names = [name for name, tensor in model.state_dict().items() if tensor.dim() >= 2]
    places = {name: module_path(name) for name in names}
    cells = [(place.tower, place.layer, place.module, place.expert) for place in places.values()]
    assert len(set(cells)) == len(names)  # no two weights in one cell
    layered = [place for place in places.values() if place.layer]
    assert {place.layer for place in layered} == {(0,), (1,)}
    assert {place.kind for place in layered} <= LAYERED
    outside = {place.kind for place in places.values() if not place.layer}
    assert "embedding" in outside and OTHER not in {place.kind for place in layered}
    two = {"gemma3", "llava", "qwen2_vl", "clip", "whisper", "t5"}
    assert len({place.tower for place in layered}) == (2 if family in two else 1)


@pytest.mark.parametrize(
    ("family", "order"),
    [
        ("llama_tied", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
        ("gpt2", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj"),
        ("bert", "query key value attention.output.dense intermediate.dense output.dense"),
        ("qwen2_moe", "q_proj k_proj v_proj o_proj shared_expert.gate_proj shared_expert.up_proj "
         "shared_expert.down_proj experts.gate_up_proj experts.down_proj mlp.gate mlp.shared_expert_gate"),
        ("mamba", "in_proj conv1d x_proj dt_proj A_log out_proj"),
    ],
)  # fmt: skip
def test_modules_stand_in_the_order_of_a_layer(family, order):
    names = [name for name, tensor in tiny_model(family).state_dict().items() if tensor.dim() >= 2]
    modules = {place.module: place.kind for place in map(module_path, names) if place.layer}
    found = sorted(modules, key=lambda module: module_order(module, modules[module]))
    assert len(found) == len(order.split())
    assert all(module.endswith(tail) for module, tail in zip(found, order.split(), strict=True))


def swin():
    """Stages of one, three and two blocks."""
    from transformers import SwinConfig, SwinForImageClassification

    sizes = {"embed_dim": 8, "depths": [1, 3, 2], "num_heads": [1, 1, 1], "image_size": 32, "patch_size": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SwinForImageClassification(SwinConfig(**sizes, window_size=2))


@pytest.fixture(params=["llama_untied", "vit", "gpt2", "t5", "swin", "clip", "moe_fused", "moe_unfused"])
def pair(request, tmp_path):
    """A model twice, its names as transformers writes them."""
    family = "qwen2_moe" if request.param.startswith("moe") else request.param
    for side in ("base", "tuned"):
        model = swin() if family == "swin" else tiny_model(family)
        model.save_pretrained(tmp_path / side, save_original_format=request.param != "moe_fused")
    found = open_pair(tmp_path / "base", tmp_path / "tuned")
    assert any(item.name.endswith("gate_up_proj") for item in found.repairable) == (request.param == "moe_fused")
    return found


def names_in(cells):
    return {name for cell in cells for name in cell.names}


def test_map_selection_and_depth_cut_a_model_alike(pair):
    names = [item.name for item in pair.repairable]
    depths = block_depths(names)
    seen = set()
    for tower in (*towers(names), ""):
        grid = map_tower([], weights_of(pair), FIGURES["rank"], tower)
        rows = [names_in(cell for cell in grid.cells if cell.row == i) for i in range(len(grid.rows))]
        along = []
        for own in rows:
            expression = expression_of(names, sorted(own))
            assert {name for name in names if re.search(expression, name)} == own
            assert len(expression) < 60 or not tower
            along.append(sorted({depths[name] for name in own}))
            seen |= own
        if tower:
            assert all(len(depth) == 1 for depth in along)  # one layer, one depth
            assert along == sorted(along) and (along[0], along[-1]) == ([0], [1])
            blocks = [depth for depth, own in zip(along, rows, strict=True) if "downsample" not in min(own)]
            assert len({depth for [depth] in blocks}) == len(blocks)  # and every block at its own
    assert seen == set(names)


def test_a_column_of_the_map_is_one_short_expression(pair):
    names = [item.name for item in pair.repairable]
    for tower in towers(names):
        grid = map_tower([], weights_of(pair), FIGURES["rank"], tower)
        for column in range(len(grid.columns)):
            own = names_in(cell for cell in grid.cells if cell.column == column)
            expression = expression_of(names, sorted(own))
            assert {name for name in names if re.search(expression, name)} == own
            assert expression.count("|") <= 1


@pytest.mark.parametrize("family", ["llama_untied", "vit", "gpt2"])
def test_depth_is_the_number_of_the_layer_over_the_last(family):
    found = block_depths(tiny_model(family).state_dict())
    for name, depth in found.items():
        number = re.search(r"\.(\d)\.", name)
        early = re.search(r"embed|wte|wpe|patch", name)
        assert depth == (int(number[1]) if number else 0 if early else 1)


def test_depth_where_names_alone_do_not_tell():
    blocks = ["layers.0.blocks.0.q", "layers.0.blocks.1.q", "layers.0.downsample.reduction", "layers.1.blocks.0.q"]
    outside = ["shared.weight", "embed_out.weight", "vision_model.pre_layrnorm.weight", "head.0.weight"]
    assert list(block_depths(blocks + outside).values()) == [0, 0.5, 0.5, 1, 0, 1, 0, 1]
    assert list(block_depths(["layers.2.q", "layers.8.q"]).values()) == [0.25, 1]


def test_towers_are_told_apart():
    towers = ["model.vision_tower.encoder.layers", "model.language_model.layers", ""]
    assert list(tower_labels(towers).values()) == ["vision_tower", "language_model"]
    assert list(tower_labels(["encoder.block", "decoder.block"]).values()) == ["encoder", "decoder"]
    flux = ["transformer_blocks", "single_transformer_blocks"]
    assert list(tower_labels(flux).values()) == flux
    assert len(set(CLASSES)) == len(CLASSES)
