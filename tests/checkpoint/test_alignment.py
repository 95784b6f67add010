"""Alignment: what lies under other modules is found by names, shapes and weights together, never by names alone."""

import json

import pytest
import torch

from dgviz.checkpoint import open_pair
from dgviz.errors import CheckpointError, PairError
from tests.checkpoints import planted_update, write_checkpoint

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def tower(seed=0, prefix="model.", layers=3):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return 0.02 * torch.randn(shape, generator=generator)

    tensors = {f"{prefix}embed_tokens.weight": normal(96, 32), f"{prefix}norm.weight": normal(32)}
    for i in range(layers):
        tensors |= {
            f"{prefix}layers.{i}.self_attn.q_proj.weight": normal(32, 32),
            f"{prefix}layers.{i}.mlp.up_proj.weight": normal(64, 32),
            f"{prefix}layers.{i}.input_layernorm.weight": normal(32),
        }
    return tensors


def renamed(tensors, change):
    return {change(name): value for name, value in tensors.items()}


def pair_of(directory, base, tuned, configs=(LLAMA, LLAMA)):
    sides = zip(("base", "tuned"), (base, tuned), configs, strict=True)
    return open_pair(*(write_checkpoint(directory / side, tensors, config) for side, tensors, config in sides))


WRAPPED = {
    "trl": lambda name: f"pretrained_model.{name}",
    "dino": lambda name: f"student.backbone.{name}",
    "latent diffusion": lambda name: f"model.diffusion_model.{name}",
    "lightning": lambda name: f"_forward_module.net.{name}",
    "peft": lambda name: f"base_model.model.{name}".replace("_proj.", "_proj.base_layer."),
    "inside every layer": lambda name: name.replace("self_attn", "wrapped.self_attn").replace("mlp", "wrapped.mlp"),
    "deep inside": lambda name: name.replace("model.layers", "model.module.layers"),
}


@pytest.mark.parametrize("change", WRAPPED.values(), ids=WRAPPED)
def test_any_wrapper_is_taken_off_and_not_written(tmp_path, change):
    base = tower()
    pair = pair_of(tmp_path, base, renamed(planted_update(base), change))
    assert [row.name for row in pair.tensors] == sorted(base)
    assert pair.counts() == {"repair": 7, "keep": 4, "base_only": 0}
    assert all(row.base.name == row.tuned.name == row.name for row in pair.tensors)


@pytest.mark.parametrize(
    ("there", "beside"),
    [
        ("language_model.model.", {"vision_tower.encoder.": 5}),  # Gemma 3, LLaVA
        ("model.language_model.", {"model.visual.": 5}),  # as transformers 5 has them
        ("model.language_model.", {"model.vision_tower.": 5, "model.audio_tower.": 6}),
        ("text.", {}),
    ],
)
def test_the_text_tower_of_a_larger_model_is_found(tmp_path, there, beside):
    """The other towers have the same names and shapes inside: weights tell which is the language model."""
    base = tower(prefix=there)
    for prefix, seed in beside.items():
        base |= tower(seed, prefix)
    tuned = planted_update(renamed(tower(prefix=there), lambda name: name.replace(there, "model.")))
    config = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    pair = pair_of(tmp_path, base, tuned, (config, LLAMA))
    rows = [row for row in pair.tensors if row.tuned is not None]
    assert [row.name for row in rows] == sorted(tuned)  # tuned's class is another, so its names stay
    assert all(row.base.name == row.name.replace("model.", there, 1) for row in rows)
    assert pair.counts()["base_only"] == 11 * len(beside)


def test_a_tower_as_tuned_of_a_model_that_is_wrapped(tmp_path):
    base = renamed(tower(), lambda name: f"module.backbone.{name}")
    pair = pair_of(tmp_path, base, planted_update(tower()))
    assert pair.counts() == {"repair": 7, "keep": 4, "base_only": 0}
    assert [row.name for row in pair.tensors] == sorted(tower())


def test_a_student_beside_its_teacher_is_left_open(tmp_path):
    base = tower()
    both = renamed(planted_update(base), lambda name: f"student.{name}")
    both |= renamed(planted_update(base, seed=2), lambda name: f"teacher.{name}")
    with pytest.raises(PairError, match="no tensor name is in both"):
        pair_of(tmp_path, base, both)


def test_names_alone_are_no_proof(tmp_path):
    other = renamed(tower(7), lambda name: f"pretrained_model.{name}")
    with pytest.raises(PairError, match="no tensor name is in both"):
        pair_of(tmp_path, tower(), other)


def test_what_matches_by_its_head_only_is_refused(tmp_path):
    head = {"lm_head.weight": 0.02 * torch.randn(96, 32)}
    other = renamed(tower(7), lambda name: name.replace("model", "encoder").replace("_proj", ""))
    with pytest.raises(PairError, match="only lm_head.weight of .* belong together by name, and no layer does"):
        pair_of(tmp_path, tower() | head, other | head)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(4, 32)}, "merge_and_unload"),
        ({"base_model.model.score.modules_to_save.default.weight": torch.ones(4, 32)}, "merge_and_unload"),
        ({"_fsdp_wrapped_module._flat_param": torch.ones(5000)}, "FSDP's flat parameters"),
        ({"model.layers.0._fsdp_wrapped_module.flat_param": torch.ones(5000)}, "FULL_STATE_DICT"),
    ],
)
def test_the_state_of_a_training_run_is_named(tmp_path, extra, said):
    with pytest.raises(CheckpointError, match=said):
        pair_of(tmp_path, tower(), tower() | extra)


def test_the_output_of_a_wrapped_model_loads(tmp_path):
    """Written by transformers, wrapped, repaired: nothing missing, nothing unexpected."""
    from dgviz.export import plan_export
    from dgviz.export.write import iter_export
    from dgviz.repair.plan import RepairPlan
    from tests.checkpoint.test_names import stored
    from tests.checkpoints import tiny_model, tune

    model = tiny_model("llama_untied")
    model.save_pretrained(tmp_path / "base")
    tune(model).save_pretrained(tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    wrapped = renamed(stored(tmp_path / "plain"), lambda name: f"_orig_mod.pretrained_model.{name}")
    tuned = write_checkpoint(tmp_path / "tuned", wrapped, config)
    plan = plan_export(open_pair(tmp_path / "base", tuned), RepairPlan(), tmp_path / "out")
    report = list(iter_export(plan, "cpu"))
    loaded = report[-1].report["verified"]["transformers"]
    assert loaded["class"] == "LlamaForCausalLM" and not any(loaded[key] for key in ("missing", "unexpected"))
    assert stored(tmp_path / "out").keys() == stored(tmp_path / "plain").keys()
