"""Directions read through the vocabulary: planted tokens are found, noise says so, and some have no stream."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.analysis import lens as module
from dgviz.analysis.lens import OpenLens, Token, find_lens, lens_table, read_directions
from dgviz.checkpoint import open_pair
from dgviz.checkpoint.vocabulary import read_texts
from dgviz.errors import LensError, SpectrumError
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.weight import find_weight, matrices_of
from tests.checkpoints import planted_update, tiny_model, write_checkpoint, write_tiny_pair, write_tokenizer

VOCABULARY, WIDTH = 400, 128
PLANTED = [271, 300, 333]
"""Tokens whose rows are the planted direction, with weights 4, 3 and 2."""


def write_model(directory, tied=False, conv1d=False, update=(), names=True):
    """Write a language model of one layer and a fine-tune of it; return the pair.

    `update` are (weight, embedding or head): a direction towards the tokens planted, in the residual stream.
    """
    generator = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(shape, generator=generator) / WIDTH**0.5

    if conv1d:
        shapes = {"attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH)}
        shapes |= {"mlp.c_fc": (WIDTH, 4 * WIDTH), "mlp.c_proj": (4 * WIDTH, WIDTH)}
        layer, table, head = "transformer.h.0", "transformer.wte.weight", "lm_head.weight"
        config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    else:
        shapes = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (WIDTH // 2, WIDTH)}
        shapes |= {"self_attn.o_proj": (WIDTH, WIDTH), "mlp.up_proj": (2 * WIDTH, WIDTH)}
        shapes |= {"mlp.down_proj": (WIDTH, 2 * WIDTH), "self_attn.q_b_proj": (WIDTH, WIDTH // 4)}
        layer, table, head = "model.layers.0", "model.embed_tokens.weight", "lm_head.weight"
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    base = {table: normal(VOCABULARY, WIDTH)} | ({} if tied else {head: normal(VOCABULARY, WIDTH)})
    base |= {f"{layer}.{name}.weight": normal(*shape) for name, shape in shapes.items()}
    tuned = {name: tensor + 1e-3 * torch.randn(tensor.shape, generator=generator) for name, tensor in base.items()}
    for name, source, stream in update:
        rows = base[table if tied or source == "embedding" else head]
        towards = torch.tensor([4.0, 3.0, 2.0]) @ rows[PLANTED]
        other = normal(base[f"{layer}.{name}.weight"].shape[1 - stream])
        change = torch.outer(towards, other) if stream == 0 else torch.outer(other, towards)
        tuned[f"{layer}.{name}.weight"] += 5 * change
    for side, tensors in (("base", base), ("tuned", tuned)):
        write_checkpoint(directory / side, tensors, config | {"tie_word_embeddings": tied})
    if names:
        write_tokenizer(directory / "base", [f"▁word{number}" for number in range(VOCABULARY - 259)])
    return open_pair(directory / "base", directory / "tuned")


def read(pair, name, *numbers):
    weight = find_weight(pair, next(item.name for item in pair.repairable if item.name.endswith(f"{name}.weight")))
    return read_directions(pair.base, OpenWeight(weight, "cpu"), numbers)


LLAMA = [("mlp.down_proj", "head", 0), ("self_attn.o_proj", "head", 0), ("mlp.up_proj", "embedding", 1)]
LLAMA += [("self_attn.q_proj", "embedding", 1), ("self_attn.k_proj", "embedding", 1)]
GPT2 = [("mlp.c_proj", "head", 1), ("attn.c_proj", "head", 1), ("mlp.c_fc", "embedding", 0)]
GPT2 += [("attn.c_attn", "embedding", 0)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("conv1d", "update"),
    [pytest.param(conv1d, one, id=one[0]) for conv1d, own in ((False, LLAMA), (True, GPT2)) for one in own],
)
def test_planted_tokens_are_at_one_end(tmp_path, tied, conv1d, update):
    """Square matrices too, whose side is told by how others of the model are stored."""
    pair = write_model(tmp_path, tied, conv1d, [update])
    strongest, noise = read(pair, update[0], 1, 20)
    ends = [[token.id for token in end[:3]] for end in (strongest.plus, strongest.minus)]
    assert PLANTED in ends
    end = (strongest.plus, strongest.minus)[ends.index(PLANTED)]
    assert [token.text for token in end[:3]] == [f" word{token - 259}" for token in PLANTED]
    assert strongest.side == "uv"[update[2]] and strongest.role == ("writes" if update[1] == "head" else "reads")
    assert ("lm_head" in strongest.through) == (not tied and update[1] == "head")
    assert strongest.stands_out and strongest.strongest > 6 > noise.strongest
    assert "noise" not in strongest.sentence


def test_directions_of_noise_seldom_stand_out(tmp_path):
    found = read(write_model(tmp_path), "mlp.down_proj", *range(1, 101))
    out = sum(one.stands_out for one in found)
    assert out <= 12, "19 of 20 random directions are below the limit"
    assert sum("no more than those of noise" in one.sentence for one in found) == 100 - out


def test_z_is_the_distance_from_the_mean_of_all_tokens_and_chance_is_of_random_directions(tmp_path, monkeypatch):
    """Against float64 over the whole table at once; here it is read in blocks of a few rows."""
    monkeypatch.setattr(module, "_BLOCK", 5000)
    pair = write_model(tmp_path, update=[LLAMA[0]])
    (found,) = read(pair, "mlp.down_proj", 2)
    rows = load_file(tmp_path / "base" / "model.safetensors")
    head = rows["lm_head.weight"].double()
    name = "model.layers.0.mlp.down_proj.weight"
    delta = load_file(tmp_path / "tuned" / "model.safetensors")[name].double() - rows[name].double()
    products = head @ torch.linalg.svd(delta).U[:, 1]
    z = ((products - products.mean()) / products.std(correction=0)).abs()
    for end in (found.plus, found.minus):
        for token in end:
            assert abs(token.z) == pytest.approx(float(z[token.id]), abs=2e-3)
    assert {found.plus[0].id, found.minus[0].id} == {int((products * sign).argmax()) for sign in (1, -1)}
    products = head @ torch.randn(WIDTH, 4000, generator=torch.Generator().manual_seed(1)).double()
    strongest = ((products - products.mean(0)) / products.std(0, correction=0)).abs().max(0).values
    assert found.chance.usual == pytest.approx(float(strongest.median()), rel=0.03)
    assert found.chance.high == pytest.approx(float(strongest.quantile(0.95)), rel=0.08)


def test_without_a_tokenizer_tokens_are_numbers(tmp_path):
    (found,) = read(write_model(tmp_path, names=False), "mlp.down_proj", 1)
    assert all(token.text == "" and str(token) == f"#{token.id}" for token in found.plus)


def test_the_embedding_and_the_head_are_read_too(tmp_path):
    pair = write_model(tmp_path)
    for name, role in (("embed_tokens", "writes"), ("lm_head", "reads")):
        (found,) = read(pair, name, 1)
        assert (found.side, found.role, found.through) == ("v", role, "lm_head.weight")


def test_a_matrix_between_two_others_has_no_stream(tmp_path):
    pair = write_model(tmp_path)
    with pytest.raises(LensError, match="it is not known that .*q_b_proj.weight reads or writes"):
        read(pair, "q_b_proj", 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "weight", "message"),
    [
        ("vit", "attention", "base has no embedding of tokens"),
        ("bert", "attention", "masked language model"),
        (
            "whisper",
            "model.encoder.layers.0.fc1",
            "it is not known that .* reads or writes the residual stream of the tokens",
        ),
        ("whisper", "model.decoder.layers.0.encoder_attn.k_proj", "it is not known that"),
        ("whisper", "model.decoder.layers.0.fc2", ""),
        ("t5", "encoder.block.0.layer.1.DenseReluDense.wo", "it is not known that"),
        ("t5", "decoder.block.0.layer.2.DenseReluDense.wo", ""),
        ("llava", "vision_tower.embeddings", "it is not known that"),
        ("llava", "vision_tower.encoder.layers.0.mlp.fc1", "it is not known that"),
        ("llava", "language_model.model.layers.0.mlp.down_proj", ""),
        ("mixtral", "layers.0.block_sparse_moe.experts.0.w2", ""),
        ("gpt2", "h.0.attn.c_attn", ""),
    ],
)
def test_architectures(tmp_path, family, weight, message):
    model = tiny_model(family)
    model.save_pretrained(tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    write_checkpoint(tmp_path / "tuned", planted_update(tensors), config)
    pair = open_pair(tmp_path / "base", tmp_path / "tuned")
    name = next(item.name for item in pair.repairable if weight in item.name)
    found = find_weight(pair, name)
    if message:
        with pytest.raises(LensError, match=message):
            find_lens(pair.base, found)
    else:
        lens = find_lens(pair.base, found)
        assert found.shape["uv".index(lens.side)] == lens.table.shape[1] == 32


@pytest.mark.slow
def test_stacks_of_experts_are_read_whichever_way_they_are_stored(tmp_path):
    """Of gpt-oss they are stored input first, of fused Qwen output first."""
    sides = {}
    for family in ("gpt_oss", "qwen3_moe_fused"):
        folder = tmp_path / family
        tiny_model(family).save_pretrained(folder / "base", save_original_format=False)
        tensors = load_file(folder / "base" / "model.safetensors")
        save_file(planted_update(tensors), _copied(folder) / "model.safetensors", metadata={"format": "pt"})
        pair = open_pair(folder / "base", folder / "tuned")
        name = next(item.name for item in pair.repairable if item.name.endswith("experts.gate_up_proj"))
        sides[family] = find_lens(pair.base, find_weight(pair, f"{name}[1]")).side
    assert sides == {"gpt_oss": "u", "qwen3_moe_fused": "v"}


def _copied(folder):
    (folder / "tuned").mkdir()
    (folder / "tuned" / "config.json").write_bytes((folder / "base" / "config.json").read_bytes())
    return folder / "tuned"


def test_an_open_lens_makes_its_noise_once(tmp_path, monkeypatch):
    pair = write_model(tmp_path)
    lens = find_lens(pair.base, find_weight(pair, "lm_head.weight"))
    opened = OpenLens(lens)
    vectors = np.eye(WIDTH)[:, :2]
    first = opened.read(lens, [1, 2], vectors)
    assert [one.number for one in first] == [1, 2]
    assert first[0].chance is opened.read(lens, [1], vectors[:, :1])[0].chance


def test_a_table_has_the_strongest_kept_and_dropped_directions(tmp_path):
    pair = write_model(tmp_path, update=[LLAMA[0]])
    name, between = (f"model.layers.0.{own}.weight" for own in ("mlp.down_proj", "self_attn.q_b_proj"))
    plan = RepairPlan("fixed_rank", {"rank": 4}, overrides=[f"name={name}: rank=4, drop_directions=2"])
    table = lens_table(pair, plan, [find_weight(pair, own) for own in (name, between)], "cpu")
    *rows, last = table
    assert [(row["direction"], row["plan"]) for row in rows] == [
        *[(1, "kept"), (3, "kept"), (4, "kept")],
        *[(2, "dropped"), (5, "dropped"), (6, "dropped")],
    ]
    words = " ".join(f"␣word{token - 259}" for token in PLANTED)
    assert any(rows[0][end].startswith(words) for end in ("towards", "away"))
    assert rows[0]["beside noise"] == "stands out" and rows[0]["z"] > rows[0]["z_of_19_in_20_random"]
    assert last["weight"] == between and "it is not known that" in last["reading"]
    assert last["direction"] is None

    whole = lens_table(pair, RepairPlan(method="wise_ft"), [find_weight(pair, name)], "cpu")
    assert [(row["direction"], row["plan"]) for row in whole] == [(1, ""), (2, ""), (3, "")]


@pytest.mark.slow
def test_a_table_of_a_model_without_tokens_is_empty(tmp_path):
    pair = open_pair(*write_tiny_pair(tmp_path, "vit"))
    assert len(lens_table(pair, RepairPlan(), matrices_of(pair.repairable[0]), "cpu")) == 0


def test_a_direction_that_is_not_there_is_said(tmp_path):
    with pytest.raises(SpectrumError, match="has 128 directions that are not zero, and no 129"):
        read(write_model(tmp_path), "mlp.down_proj", 129)


def test_tokens_of_bytes_are_texts(tmp_path):
    """As GPT-2 spells them; what is no whole character stays as it is spelled."""
    vocabulary = {"Ġthe": 0, "Ċ": 1, "ä½ł": 2, "ä½": 3, "a": 4}
    document = {"model": {"vocab": vocabulary}, "decoder": {"type": "ByteLevel"}, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert read_texts(tmp_path) == {0: " the", 1: "\n", 2: "你", 3: "ä½", 4: "a"}
    shown = [str(Token(7, text, 1.0)) for text in (" the", "\n", "\ud800", 50 * "a", "")]
    assert shown == ["␣the", "\\n", "\\ud800", 40 * "a" + "…", "#7"]
