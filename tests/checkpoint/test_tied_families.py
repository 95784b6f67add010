"""Tied heads of many families: whichever of its names either side stores, the output's head is its embedding."""

import json

import pytest
import torch
from safetensors.torch import save_file

from dgviz.checkpoint import inspect_pair, open_pair, read_preflight
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from tests.checkpoints import tune

S = {"vocab_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
BUILT = {
    "DistilBertForMaskedLM": {"vocab_size": 96, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64},
    "RobertaForMaskedLM": S | {"max_position_embeddings": 64},
    "ElectraForMaskedLM": S | {"embedding_size": 32},
    "AlbertForMaskedLM": S | {"embedding_size": 16, "vocab_size": 128},
    "MPNetForMaskedLM": S,
    "GPTNeoXForCausalLM": S | {"tie_word_embeddings": True},
    "OPTForCausalLM": S | {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "BloomForCausalLM": {"vocab_size": 96, "hidden_size": 32, "n_layer": 1, "n_head": 4},
    "MptForCausalLM": {"vocab_size": 96, "d_model": 32, "n_layers": 1, "n_heads": 4, "max_seq_len": 64},
    "XLNetLMHeadModel": {"vocab_size": 96, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
    "BartForConditionalGeneration": {
        "vocab_size": 96,
        "d_model": 32,
        "max_position_embeddings": 64,
        **{f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 64))},
        **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    },
}


def build(kind):
    import transformers

    model_class = getattr(transformers, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(model_class.config_class(**BUILT[kind])).eval()


def names_of(model):
    """Return the embedding and its other names."""
    state = model.state_dict()
    embedding = model.get_input_embeddings().weight
    same = [name for name, value in state.items() if value.data_ptr() == embedding.data_ptr()]
    return same


def save(model, directory, leave_out):
    directory.mkdir()
    tensors = {name: value.clone() for name, value in model.state_dict().items() if name not in leave_out}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    (directory / "config.json").write_text(json.dumps(config, default=str))
    return directory


@pytest.mark.parametrize("kind", BUILT)
def test_the_head_stays_the_embedding(tmp_path, kind):
    model = build(kind)
    same = names_of(model)
    assert len(same) > 1
    for number, (left_out_of_base, left_out_of_tuned) in enumerate(
        (((), ()), (same[1:], ()), ((), same[1:]), (same[:1], ()), (same[:1], same[1:]))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        base = save(model, folder / "base", left_out_of_base)
        tuned = save(tune(build(kind)), folder / "tuned", left_out_of_tuned)
        pair = open_pair(base, tuned)
        written = [row for row in pair.tensors if row.name in same and row.tuned is not None]
        assert {row.action for row in written} == {"repair"}, (kind, number, [(r.name, r.reason) for r in written])
        values = [repair_tensor(row, RepairPlan("fixed_rank", {"rank": 2}), "cpu").tensor for row in written]
        assert all(torch.equal(values[0], value) for value in values)
        codes = {notice.code for notice in read_preflight(inspect_pair(base, tuned)).notices}
        assert "tied_head" in codes and "untied_head" not in codes, (kind, number, codes)
