"""Adapters of tied tensors: the output's logits are those of the running PEFT model, tied or not."""

import json

import pytest
import torch

from dgviz.checkpoint import inspect_pair, open_pair, read_preflight
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import tiny_model

IDS = torch.arange(3, 19)[None]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, False),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}, True),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ["q_proj"]}, True),
    ],
)
def test_an_adapter_of_tied_tensors_runs_as_in_peft(tmp_path, config, tied):
    peft = pytest.importorskip("peft")
    model = tiny_model("llama_tied")
    model.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **config))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        live = adapted.eval()(input_ids=IDS).logits
    paths = tmp_path / "base", tmp_path / "adapter"
    plan = plan_export(open_pair(*paths), RepairPlan("fixed_rank", {"rank": 10000}), tmp_path / "out")
    list(iter_export(plan, "cpu"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is tied
    again, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}
    with torch.no_grad():
        assert (again.eval()(input_ids=IDS).logits - live).abs().max() < 1e-5
    codes = {notice.code for notice in read_preflight(inspect_pair(*paths)).notices}
    assert ("untied_by_adapter" in codes) == (not tied)
