"""diffusers: a component's directory is one checkpoint under names of its own; a pipeline is several."""

import json

import pytest
import torch

from dgviz.checkpoint import open_checkpoint, open_pair
from dgviz.errors import CheckpointError
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import planted_update, random_tensors, write_checkpoint

CONFIG = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.35.0"}
STEM = "diffusion_pytorch_model"


def write_component(directory, tensors, shards=1, variant="", number_last=False):
    """Write tensors as diffusers does: a shard's variant before its number, or after it as older releases do."""
    write_checkpoint(directory / "plain", tensors, CONFIG, shards)
    for file in (directory / "plain").iterdir():
        name = file.name.replace("model", STEM)
        if name.endswith(".index.json"):
            index = json.loads(file.read_text())
            places = {key: shard_name(shard, variant, number_last) for key, shard in index["weight_map"].items()}
            file.write_text(json.dumps(index | {"weight_map": places}))
            name = name.replace(".index.json", f".index.{variant}.json" if variant else ".index.json")
        elif name.endswith(".safetensors"):
            name = shard_name(file.name, variant, number_last)
        file.rename(directory / name)
    (directory / "plain").rmdir()
    return directory


def shard_name(name, variant, number_last):
    name = name.replace("model", STEM)
    if not variant:
        return name
    return name.replace(".s", f".{variant}.s") if number_last else name.replace(STEM, f"{STEM}.{variant}")


def message(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shards", "variant", "number_last"),
    [(1, "", False), (2, "", False), (1, "fp16", False), (2, "fp16", False), (2, "fp16", True)],
)
def test_a_component_opens_and_is_written_as_one(tmp_path, shards, variant, number_last):
    tensors = random_tensors(dtype=torch.float16 if variant else torch.float32)
    layout = {"shards": shards, "variant": variant, "number_last": number_last}
    base = write_component(tmp_path / "base" / "unet", tensors, **layout)
    tuned = write_component(tmp_path / "tuned" / "unet", planted_update(tensors), **layout)
    pair = open_pair(base, tuned)
    assert len(pair.repairable) == 6 and len(pair.tuned.shards) == shards
    list(iter_export(plan_export(pair, RepairPlan("fixed_rank", {"rank": 2}), tmp_path / "out"), "cpu"))
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {file.name for file in tuned.iterdir()} <= written
    assert not any(name.startswith("model.safetensors") for name in written)
    assert open_checkpoint(tmp_path / "out").tensors.keys() == tensors.keys()


def test_the_full_weights_come_before_their_variant(tmp_path):
    write_component(tmp_path, random_tensors())
    write_component(tmp_path, random_tensors(dtype=torch.float16), variant="fp16")
    full = open_checkpoint(tmp_path)
    assert full.shards == (f"{STEM}.safetensors",)
    half = open_checkpoint(tmp_path / f"{STEM}.fp16.safetensors")
    assert half.shards == (f"{STEM}.fp16.safetensors",)
    assert half.tensors["model.pos"].dtype == "float16" and full.tensors["model.pos"].dtype == "float32"
    (tmp_path / f"{STEM}.safetensors.index.json").write_text("{}")
    assert f"holds both {STEM}.safetensors and {STEM}.safetensors.index.json" in message(tmp_path)


def test_a_text_encoder_may_have_only_its_variant(tmp_path):
    write_checkpoint(tmp_path, random_tensors())
    (tmp_path / "model.safetensors").rename(tmp_path / "model.fp16.safetensors")
    assert open_checkpoint(tmp_path).shards == ("model.fp16.safetensors",)


def test_a_pipeline_names_its_components(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert "none of its directories holds *.safetensors weights" in message(tmp_path)
    for name in ("vae", "unet"):
        write_component(tmp_path / name, random_tensors(), shards=2)
    write_checkpoint(tmp_path / "text_encoder", random_tensors(), {})
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    components = ", ".join(str(tmp_path / name) for name in ("text_encoder", "unet", "vae"))
    assert "is a diffusers pipeline (model_index.json) of several models" in message(tmp_path)
    assert message(tmp_path).endswith(f"give one of {components}")
    for name in ("text_encoder", "unet", "vae"):
        assert open_checkpoint(tmp_path / name).tensors.keys() == random_tensors().keys()
    # The whole pipeline once more in one file, as it often lies beside the components, can be named.
    write_checkpoint(tmp_path / "whole", random_tensors())
    (tmp_path / "whole" / "model.safetensors").rename(tmp_path / "sd_xl_base_1.0.safetensors")
    assert message(tmp_path).endswith(f"give one of {components}")
    assert open_checkpoint(tmp_path / "sd_xl_base_1.0.safetensors").shards == ("sd_xl_base_1.0.safetensors",)
