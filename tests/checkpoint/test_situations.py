"""Situations that real pairs are in, with models of many families: what is paired, and the repair against float64."""

import json
from unittest.mock import patch

import pytest
import torch

from dgviz.checkpoint import open_pair, read_tensor
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoint.test_names import RANK, low_rank, stored
from tests.checkpoints import tune, write_checkpoint

TEXT = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VISION = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
VISION |= {"image_size": 16, "patch_size": 4}
PHI = {key: TEXT[key] for key in TEXT if key != "num_key_value_heads"}
CTRL = {"vocab_size": 96, "n_embd": 32, "n_layer": 1, "n_head": 4, "dff": 64, "n_positions": 64}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
OPT |= {key: TEXT[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
GPT2 = {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 4}
XLNET = {"vocab_size": 96, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}
JETMOE = {key: TEXT[key] for key in TEXT if key != "num_attention_heads"}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def build(kind, config):
    import transformers

    model_class = getattr(transformers, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(model_class.config_class(**config)).eval()


def resized(names, rows, **entries):
    """Return a change of a checkpoint: other rows of some tensors, other entries of the config."""

    def change(tensors, config):
        for name in (name for name in tensors if name.endswith(names)):
            value = tensors[name]
            new = torch.full((max(0, rows - len(value)), *value.shape[1:]), 0.5)
            tensors[name] = torch.cat([value[:rows], new])
        return tensors, config | entries

    return change


def write_pair(directory, kind, config, change=None):
    model = build(kind, config)
    model.save_pretrained(directory / "base")
    tune(model).save_pretrained(directory / "tuned")
    if change is not None:
        found = json.loads((directory / "tuned" / "config.json").read_text())
        write_checkpoint(directory / "tuned", *change(stored(directory / "tuned"), found))
    return directory / "base", directory / "tuned"


def worst_error(pair, out):
    """Repair with a fixed rank; return the largest difference to float64, reading what dgviz paired."""
    plan = plan_export(pair, RepairPlan("fixed_rank", {"rank": RANK}), out)
    with patch("dgviz.export.full.verify_load", return_value=({"transformers": {"skipped": "not here"}}, 0.0)):
        list(iter_export(plan, "cpu"))
    written, worst = stored(out), 0.0
    for row in pair.repairable:
        begin, end = (row.rows or ((0, row.tuned.shape[0]),))[0]
        base, tuned = read_tensor(row.base).double(), read_tensor(row.tuned).double()[begin:end]
        shape = base.shape if row.stacked else (base.shape[0], -1)
        expected = base + low_rank((tuned - base).reshape(shape), RANK).reshape(base.shape)
        worst = max(worst, float((written[row.name][begin:end].double() - expected).abs().max()))
    return worst


@pytest.mark.parametrize(
    ("kind", "config", "change", "stacks", "rows"),
    [
        ("GraniteMoeForCausalLM", TEXT | EXPERTS, None, 2, {}),
        ("JetMoeForCausalLM", JETMOE | EXPERTS | {"kv_channels": 16}, None, 4, {}),
        (
            "XLNetLMHeadModel",
            {"vocab_size": 96, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
            None,
            0,
            {},
        ),
        (
            "PhiForCausalLM",
            PHI,
            resized(("embed_tokens.weight", "lm_head.weight", "lm_head.bias"), 104, vocab_size=104),
            0,
            {"model.embed_tokens.weight": 96, "lm_head.weight": 96},
        ),
        ("CTRLLMHeadModel", CTRL, resized(("w.weight", "lm_head.bias"), 104), 0, {"transformer.w.weight": 96}),
        ("OPTForCausalLM", OPT, resized(("embed_tokens.weight",), 80, vocab_size=80), 0, {}),
        ("GPT2LMHeadModel", GPT2, resized(("wpe.weight",), 96, n_positions=96), 0, {"transformer.wpe.weight": 64}),
    ],
)
def test_families_are_read_for_what_they_are(tmp_path, kind, config, change, stacks, rows):
    pair = open_pair(*write_pair(tmp_path, kind, config | (IDS if "GPT2" not in kind else {}), change))
    assert sum(row.layout.stack is not None for row in pair.repairable) == stacks
    assert {row.name: row.rows[0][1] for row in pair.repairable if row.rows} == rows
    assert all(row.base is not None for row in pair.tensors) and pair.counts()["base_only"] == 0
    assert worst_error(pair, tmp_path / "out") < 1e-7


@pytest.mark.parametrize(
    ("kind", "text_kind", "text", "vision", "more", "tower"),
    [
        ("Mistral3", "Mistral", {"model_type": "mistral"}, {"model_type": "pixtral", "head_dim": 8}, {}, ""),
        ("InternVL", "Qwen2", {"model_type": "qwen2"}, {"image_size": [16, 16], "patch_size": [4, 4]}, {}, ""),
        ("Idefics3", "Llama", {"model_type": "llama"}, {}, {"scale_factor": 2, "image_token_id": 95}, "text_model"),
    ],
)
def test_a_text_model_made_of_a_larger_one(tmp_path, kind, text_kind, text, vision, more, tower):
    import transformers

    settings = {"text_config": TEXT | IDS | text, "vision_config": VISION | vision, **more}
    big = build(f"{kind}ForConditionalGeneration", settings)
    small = getattr(transformers, f"{text_kind}ForCausalLM")(big.config.get_text_config())
    small.model.load_state_dict(getattr(big.model, tower or "language_model").state_dict())
    small.lm_head.load_state_dict(big.lm_head.state_dict())
    big.save_pretrained(tmp_path / "base")
    tune(small).save_pretrained(tmp_path / "tuned")
    pair = open_pair(tmp_path / "base", tmp_path / "tuned")
    assert all(row.base is not None for row in pair.tensors if row.tuned is not None)
    assert {row.name for row in pair.tensors if row.tuned} == set(stored(tmp_path / "tuned"))
    assert worst_error(pair, tmp_path / "out") < 1e-7
