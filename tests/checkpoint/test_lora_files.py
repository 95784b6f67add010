"""LoRA files of kohya, diffusers and mlx-lm as tuned: what they add to base, in float64; the rest is named."""

import json

import pytest
import torch
from safetensors.torch import save_file

from dgviz.checkpoint import inspect_pair, open_checkpoint, open_pair, read_tensor
from dgviz.errors import CheckpointError
from tests.checkpoints import write_checkpoint

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
QUERY, OUT, CONV, TEXT = f"{BLOCK}.to_q", f"{BLOCK}.to_out.0", "down_blocks.0.resnets.0.conv1", "encoder.q_proj"
SHAPES = {QUERY: (48, 32), OUT: (32, 32), CONV: (32, 32, 3, 3), "mid_block.proj_in": (40, 32, 1, 1)}
RANK = 4


def normal(*shape, seed=0):
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def factors(module):
    """Return A (rank, in) and B (out, rank) of a module, as kernels where its weight is one."""
    rows, columns, *kernel = SHAPES[module]
    second = normal(rows, RANK, *([1] * len(kernel)), seed=2)
    return normal(RANK, columns, *kernel, seed=1), second


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    tensors = {f"{module}.weight": normal(*shape) for module, shape in SHAPES.items()}
    tensors |= {f"{QUERY}.bias": normal(48), "up_blocks.0.conv1.weight": normal(32, 32)}
    return write_checkpoint(tmp_path_factory.mktemp("unet"), tensors)


def kohya(module, first, second):
    flat = f"lora_unet_{module.replace('.', '_')}"
    alpha = {f"{flat}.alpha": torch.tensor(2.0, dtype=torch.bfloat16)}
    return {f"{flat}.lora_down.weight": first, f"{flat}.lora_up.weight": second, **alpha}


def diffusers(module, first, second):
    return {f"unet.{module}.lora_A.weight": first, f"unet.{module}.lora_B.weight": second}


def before_peft(module, first, second):
    path = module.replace("to_out.0", "to_out").replace("attn1.", "attn1.processor.")
    path += "_lora" if ".processor." in path else ".lora"
    return {f"unet.{path}.down.weight": first, f"unet.{path}.up.weight": second}


def mlx(module, first, second):
    return {f"{module}.lora_a": first.T.contiguous(), f"{module}.lora_b": second.T.contiguous()}


METADATA = {"unet.r": RANK, "unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 12}, "unet.rank_pattern": {}}
TWO = [QUERY, OUT]
FILES = {
    "kohya": (kohya, list(SHAPES), "mine.safetensors", None, lambda _: 2 / RANK),
    "diffusers": (diffusers, list(SHAPES), "pytorch_lora_weights.safetensors", None, lambda _: 1.0),
    "diffusers with settings": (
        diffusers,
        list(SHAPES),
        "pytorch_lora_weights.safetensors",
        METADATA,
        lambda module: (12 if module == QUERY else 8) / RANK,
    ),
    "diffusers before PEFT": (before_peft, list(SHAPES), "old.safetensors", None, lambda _: 1.0),
    "mlx-lm": (mlx, TWO, "adapters.safetensors", None, lambda _: 20.0),
}


def write_lora(folder, kind):
    make, modules, name, metadata, _ = FILES[kind]
    tensors = {key: value for module in modules for key, value in make(module, *factors(module)).items()}
    about = {} if metadata is None else {"lora_adapter_metadata": json.dumps(metadata)}
    save_file(tensors, folder / name, metadata={"format": "pt", **about})
    if kind == "mlx-lm":
        said = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": RANK, "scale": 20.0}}
        (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder / name, tensors


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("whole_folder", [False, True])
def test_it_is_base_plus_its_update(base, tmp_path, kind, whole_folder):
    file, _ = write_lora(tmp_path, kind)
    pair = open_pair(base, tmp_path if whole_folder else file)
    changed = {row.name for row in pair.tensors if row.cause == "update"}
    _, modules, _, _, scaling = FILES[kind]
    assert changed == {f"{module}.weight" for module in modules} and pair.tuned.is_adapter
    for name, info in pair.tuned.tensors.items():
        before = read_tensor(pair.base.tensors[name])
        module = name.removesuffix(".weight")
        expected = before.double()
        if name in changed:
            first, second = (part.double().flatten(1) for part in factors(module))
            expected = expected + (scaling(module) * second @ first).reshape(before.shape)
        assert (read_tensor(info).double() - expected).abs().max() < 1e-6, name


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_one_that_peft_made_adds_what_peft_merges(tmp_path):
    """The factors of an adapter that PEFT holds, under kohya's names, against PEFT's own merge."""
    import peft

    from tests.checkpoints import tiny_model

    model = tiny_model("clip")
    model.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "fc1"]))
    tensors = {}
    for name, layer in adapted.named_modules():
        if isinstance(layer, peft.tuners.lora.Linear):
            flat = "lora_te_" + name.removeprefix("base_model.model.").replace(".", "_")
            torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
            tensors[f"{flat}.lora_down.weight"] = layer.lora_A["default"].weight.detach().clone()
            tensors[f"{flat}.lora_up.weight"] = layer.lora_B["default"].weight.detach().clone()
            tensors[f"{flat}.alpha"] = torch.tensor(3.0)
    save_file(tensors, tmp_path / "clip.safetensors")
    merged = adapted.merge_and_unload().state_dict()
    pair = open_pair(tmp_path / "base", tmp_path / "clip.safetensors")
    assert sum(row.cause == "update" for row in pair.tensors) == len(tensors) // 3
    for name, info in pair.tuned.tensors.items():
        assert torch.allclose(read_tensor(info), merged[name], atol=1e-7), name


def test_another_component_is_left_out_and_said(base, tmp_path):
    file, tensors = write_lora(tmp_path, "kohya")
    save_file(
        tensors | {"lora_te_x.lora_down.weight": normal(4, 32), "lora_te_x.lora_up.weight": normal(32, 4)}, file
    )
    pair = inspect_pair(base, file)
    (notice,) = [notice for notice in pair.notices if notice.code == "lora_components"]
    assert "changes te too, which is another component than base" in notice.message


def pair_of(module):
    return {f"{module}.lora_down.weight": normal(4, 4), f"{module}.lora_up.weight": normal(4, 4)}


def first_of(tensors, key=".lora_down.weight"):
    return next(name for name in tensors if name.endswith(key))


WRONG = {
    "no scale": (
        "mlx-lm",
        lambda folder, tensors: (folder / "adapter_config.json").unlink(),
        "which says its scale",
    ),
    "DoRA of mlx-lm": (
        "mlx-lm",
        lambda folder, tensors: (folder / "adapter_config.json").write_text('{"fine_tune_type": "dora"}'),
        "only lora with a scale is read: fuse it (mlx_lm.fuse",
    ),
    "LoHa": ("kohya", lambda folder, t: t.update({"lora_unet_x.hada_w1_a": normal(4, 4)}), "it is no plain LoRA"),
    "DoRA": ("kohya", lambda folder, t: t.update({"lora_unet_x.dora_scale": normal(4)}), "it is no plain LoRA"),
    "half": ("kohya", lambda folder, t: t.pop(first_of(t)), "holds only one of the two factors"),
    "another base": (
        "kohya",
        lambda folder, t: t.update(
            {"lora_unet_x.lora_down.weight": normal(4, 4), "lora_unet_x.lora_up.weight": normal(4, 4)}
        ),
        "changes 'lora_unet_x', which",
    ),
    "another shape": ("kohya", lambda folder, t: t.update({first_of(t): normal(4, 31)}), "is this the base"),
    "ZeRO-3": ("kohya", lambda folder, t: t.update({first_of(t): torch.empty(0)}), "without gathering the weights"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_read_is_refused_by_name(base, tmp_path, what):
    kind, damage, words = WRONG[what]
    file, tensors = write_lora(tmp_path, kind)
    damage(tmp_path, tensors)
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as caught:
        inspect_pair(base, file)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight"), "is a LoRA as kohya writes it, no model"),
        (("unet.a.lora_A.weight", "unet.a.lora_B.weight"), "is a LoRA as diffusers writes it, no model"),
        (("a.b.lora_a", "a.b.lora_b"), "is a LoRA as mlx-lm writes it, no model"),
        (("model.a.lora_A.weight", "model.a.lora_B.weight"), "put its adapter_config.json beside it"),
    ],
)
def test_none_is_a_base(tmp_path, names, words):
    save_file({name: normal(4, 4) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(tmp_path / "x.safetensors")


# --- what lies beside a PEFT adapter --------------------------------------------------------------------------------


def write_peft(folder, **tensors):
    folder.mkdir()
    first, second = factors(QUERY)
    stored = {f"base_model.model.{QUERY}.lora_A.weight": first, f"base_model.model.{QUERY}.lora_B.weight": second}
    save_file(stored | tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": RANK}))
    return folder


@pytest.mark.parametrize("name", ["non_lora_state_dict.bin", "non_lora_trainables.bin", "value_head.safetensors"])
def test_other_trained_weights_beside_an_adapter_are_warned_of(base, tmp_path, name):
    folder = write_peft(tmp_path / "a")
    for file in ("optimizer.pt", "training_args.bin", "rng_state_0.pth", "scheduler.pt"):
        (folder / file).write_bytes(b"")
    assert not open_pair(base, folder).notices
    (folder / name).write_bytes(b"")
    (notice,) = open_pair(base, folder / "adapter_model.safetensors").notices
    assert notice.severity == "warning" and f"{name} beside the adapter in {folder} is not read" in notice.message


def test_an_adapter_left_empty_by_zero3_is_named(base, tmp_path):
    folder = write_peft(tmp_path / "a", **{f"base_model.model.{QUERY}.lora_A.weight": torch.empty(0)})
    with pytest.raises(CheckpointError, match="1 of 2 tensors in .* is empty .* ZeRO-3"):
        open_pair(base, folder)
