"""Folders of training runs and of other tools: each is told by its files, with the command or path that helps."""

import pytest
import torch
from safetensors.torch import save_file

from dgviz.checkpoint import inspect_pair, open_checkpoint, open_pair, read_tensor
from dgviz.errors import CheckpointError, PairError
from tests.checkpoints import planted_update, random_tensors, write_checkpoint, write_pair

# Files of a folder, and what is to be said of it; {} is the folder.
FOLDERS = {
    "accelerate": (
        ["pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata", "optimizer_0/__0_0.distcp"],
        "FSDP shards (*.distcp): merge them by `accelerate merge-weights {}/pytorch_model_fsdp_0 OUT`",
    ),
    "torchtitan": ([".metadata", "__0_0.distcp"], "`accelerate merge-weights {} OUT`, put config.json into OUT"),
    "one file of FSDP": (["pytorch_model_fsdp.bin"], "name it pytorch_model.bin and set DGVIZ_ALLOW_BIN=1"),
    "FSDP by rank": (["pytorch_model_fsdp_rank0.bin", "pytorch_model_fsdp_rank1.bin"], "save with FULL_STATE_DICT"),
    "ZeRO without its script": (
        ["global_step20/mp_rank_00_model_states.pt"],
        "`python -m deepspeed.utils.zero_to_fp32 {} OUT --safe_serialization`",
    ),
    "ZeRO of OpenRLHF": (
        ["_actor/zero_to_fp32.py", "_actor/latest", "_actor/step9/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"],
        "`python {}/_actor/zero_to_fp32.py {}/_actor OUT --safe_serialization`",
    ),
    "verl, two steps": (
        [
            f"global_step_{step}/{part}/model_world_size_2_rank_0.pt"
            for step in (9, 10)
            for part in ("actor", "critic")
        ],
        "`python -m verl.model_merger merge --backend fsdp --local_dir {}/global_step_10/actor --target_dir OUT`",
    ),
    "a trainer's root": (
        ["trainer_state.json", "checkpoint-50/optimizer.pt", "checkpoint-9/optimizer.pt"],
        "the checkpoints checkpoint-9, checkpoint-50: give one, such as {}/checkpoint-50",
    ),
    "epochs": (["epoch_0/model.safetensors", "epoch_1/model.safetensors"], "give one, such as {}/epoch_1"),
    "an adapter below": (["lora/adapter_config.json"], "a PEFT adapter lies one level down: give {}/lora as tuned"),
    "two adapters below": (
        ["a/adapter_config.json", "b/adapter_config.json"],
        "a PEFT adapter lies one level down: give one of {}/a, {}/b as tuned",
    ),
    "an adapter": (["adapter_config.json"], "it holds a PEFT adapter (adapter_config.json), which is no model"),
    "an adapter without config": (
        ["adapter_model.safetensors"],
        "adapter_model.safetensors without its adapter_",
    ),
    "NeMo 1": (["model.nemo"], "convert_<model>_nemo_to_hf.py --input_name_or_path {}/model.nemo --output_path OUT"),
    "NeMo 2": (["context/model.yaml", "weights/__0_0.distcp"], "llm.export_ckpt(path="),
    "Megatron": (
        ["latest_checkpointed_iteration.txt", "iter_0000010/mp_rank_00/model_optim_rng.pt"],
        "it is a Megatron checkpoint: export it with Megatron Bridge",
    ),
    "Meta's own": (
        ["consolidated.00.pth", "params.json"],
        "convert_llama_weights_to_hf --input_dir {} --output_dir OUT",
    ),
    "sentence-transformers of old": (
        ["0_Transformer/model.safetensors", "1_Pooling/config.json"],
        "it is a sentence-transformers model (modules.json): give the module that is meant, {}/0_Transformer",
    ),
    "weights below": (["final/model.safetensors"], "weights lie one level down: give {}/final"),
    "two variants": (
        ["model.bf16.safetensors", "model.fp32.safetensors"],
        "several sets of weights (model.bf16.safetensors, model.fp32.safetensors)",
    ),
    "a folder of models": (
        ["a.safetensors", "b.safetensors"],
        "name the one that is meant, such as {}/a.safetensors",
    ),
    "a cache entry": (["snapshots/abc/model.safetensors"], "a Hugging Face cache entry: give {}/snapshots/abc"),
    "GGUF": (["model-Q4.gguf"], "GGUF files (model-Q4.gguf)"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_says_what_it_is(tmp_path, kind):
    files, words = FOLDERS[kind]
    for name in files:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"{}")
    if kind.startswith("sentence"):
        (tmp_path / "modules.json").write_text('[{"path": "0_Transformer"}, {"path": "1_Pooling"}]')
    message = said_of(tmp_path)
    assert "\n" not in message and words.replace("{}", str(tmp_path)) in message


def said_of(folder) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    return str(caught.value)


def test_a_command_quotes_its_path(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "__0_0.distcp").write_bytes(b"")
    assert f"`accelerate merge-weights '{folder}' OUT`" in said_of(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.gguf", "is a GGUF file"),
        ("model.ckpt", "is a PyTorch pickle"),
        ("model.onnx", "holds weights of another framework"),
        ("notes.txt", "is no *.safetensors file or index"),
    ],
)
def test_a_named_file_of_another_kind_says_what_it_is(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=words.replace("*", r"\*")):
        open_checkpoint(tmp_path / name)


def test_a_named_file_is_that_file_whatever_lies_beside_it(tmp_path):
    tensors = random_tensors()
    write_checkpoint(tmp_path, tensors, {"transformers_weights": "model.safetensors"})
    write_checkpoint(tmp_path, planted_update(tensors), shards=2)  # an index, which loaders would argue about
    for name, seed in (("flux-dev", 1), ("mine", 2), ("adapter_model", 3)):
        save_file(planted_update(tensors, seed), tmp_path / f"{name}.safetensors")
    pair = open_pair(tmp_path / "flux-dev.safetensors", tmp_path / "mine.safetensors")
    assert pair.base.shards == ("flux-dev.safetensors",) and pair.tuned.shards == ("mine.safetensors",)
    name = "model.layers.2.mlp.up.weight"
    assert torch.equal(read_tensor(pair.tuned.tensors[name]), planted_update(tensors, 2)[name])
    assert open_checkpoint(tmp_path / "model.safetensors").shards == ("model.safetensors",)
    assert len(open_checkpoint(tmp_path / "model.safetensors.index.json").shards) == 2


@pytest.mark.parametrize("sharded", [False, True])
def test_the_only_variant_is_opened(tmp_path, sharded):
    write_checkpoint(tmp_path, random_tensors(), shards=2 if sharded else 1)
    old, new = (
        ("model.safetensors.index.json", "model.safetensors.index.bf16.json")
        if sharded
        else (
            "model.safetensors",
            "model.bf16.safetensors",
        )
    )
    (tmp_path / old).rename(tmp_path / new)
    assert open_checkpoint(tmp_path).tensors.keys() == random_tensors().keys()


@pytest.mark.parametrize("side", ["base", "tuned"])
@pytest.mark.parametrize("exclude", [None, "up"])
def test_tensors_left_empty_by_zero3_block_whatever_is_excluded(tmp_path, side, exclude):
    base, tuned = write_pair(tmp_path)
    tensors = random_tensors()
    empty = [name for name, tensor in tensors.items() if "up" in name or tensor.dim() == 1]
    write_checkpoint(tmp_path / side, {name: torch.empty(0) if name in empty else t for name, t in tensors.items()})
    (tuned / "zero_to_fp32.py").write_text("")
    pair = inspect_pair(base, tuned, exclude=exclude)
    assert [notice.code for notice in pair.blockers] == ["ungathered"] and not pair.blockers[0].exclude
    with pytest.raises(PairError) as caught:
        open_pair(base, tuned, exclude=exclude)
    message = str(caught.value)
    assert f"{len(empty)} of {side}'s {len(tensors)} tensors are empty" in message
    assert (
        "ZeRO-3" in message and "stage3_gather_16bit_weights_on_model_save" in message and "--exclude" not in message
    )
    assert (f"python {tuned}/zero_to_fp32.py {tuned} OUT" in message) == (side == "tuned")
