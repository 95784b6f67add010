"""Files beside the weights: all of them go along, but for those there is a reason to leave, which is told."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from dgviz.checkpoint import open_pair
from dgviz.errors import CheckpointError, ExportError
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import write_checkpoint, write_pair

CARRIED = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "source.spm",  # Marian
    "target.spm",
    "bpe.codes",  # PhoBERT
    "vocab.bpe",
    "dict.txt",
    "qwen.tiktoken",
    "normalizer.json",  # Whisper
    "sentencepiece.bpe.model",
    "entity_vocab.json",  # LUKE
    "tekken.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "additional_chat_templates/tool.jinja",
    "figures/loss.png",
    "LICENSE",
    "hf_device_map.json",
]
LEFT = {
    "README.md": "it speaks of tuned alone",
    "dgviz.run.json": "it speaks of tuned alone",
    "all_results.json": "it speaks of tuned alone",
    "optimizer.pt": "training state",
    "rng_state_0.pth": "training state",
    "trainer_state.json": "training state",
    "training_args.bin": "training state",
    "zero_to_fp32.py": "training state",
    "latest": "training state",
    "runs/now/events.out.tfevents.1": "training state",
    "global_step9/mp_rank_00_model_states.pt": "training state",
    "checkpoint-9/model.safetensors": "it holds weights of its own",
    "checkpoint-9/config.json": "it holds weights of its own",
    "onnx/model.onnx": "it holds weights of its own",
    "original/consolidated.00.pth": "it holds weights of its own",
    "original/params.json": "it holds weights of its own",
    "pytorch_model.bin": "weights",
    "model.safetensors.index.bf16.json": "weights",
    "quantize_config.json": "weights",
    "modeling_x.py": "code",
    "train.sh": "code",
    "model.safetensors.1f.partial": "it was not written to its end",
    ".gitattributes": "hidden",
}


def write_files(folder, names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"from": folder.name, "name": name}))


def export(base, tuned, out, **options):
    plan = plan_export(open_pair(base, tuned), RepairPlan(), out, **options)
    report = list(iter_export(plan, "cpu"))[-1].report
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return report, files - {"model.safetensors", "dgviz.json", "dgviz.run.json", "README.md"}


def test_what_goes_along_and_what_stays(tmp_path):
    base, tuned = write_pair(tmp_path)
    write_files(tuned, [*CARRIED, *LEFT])
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]
    (tuned / "modules.json").write_text(json.dumps(modules))
    write_files(base, ["tokenizer.model", "vocab.txt", "preprocessor_config.json", "unknown.json"])
    report, files = export(base, tuned, tmp_path / "out")
    assert files == {*CARRIED, "preprocessor_config.json"}
    for name in CARRIED:
        assert (tmp_path / "out" / name).read_bytes() == (tuned / name).read_bytes()
    assert report["warnings"] == ["preprocessor_config.json copied from base: tuned has none"]
    told = report["left_behind"]
    text = (tmp_path / "out" / "README.md").read_text()
    for name, reason in LEFT.items():
        known = next(known for known in (name, *(f"{folder}/" for folder in folders_of(name))) if known in told)
        assert told[known] == reason and f"| `{known}` | {reason} |" in text


def test_a_pointer_in_the_place_of_a_tokenizer_is_refused(tmp_path):
    base, tuned = write_pair(tmp_path)
    (tuned / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="tokenizer.json is a Git LFS pointer, .* run git lfs pull"):
        plan_export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")


def folders_of(name):
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def test_code_goes_along_where_asked_for(tmp_path):
    base, tuned = write_pair(tmp_path)
    write_files(tuned, ["config.json", "modeling_x.py", "train.sh", "zero_to_fp32.py"])
    _, files = export(base, tuned, tmp_path / "out", allow_code=True)
    assert files == {"config.json", "modeling_x.py"}


def test_a_tokenizer_is_not_mixed_of_two(tmp_path):
    base, tuned = write_pair(tmp_path)
    write_files(
        base, ["config.json", "tokenizer.json", "merges.txt", "special_tokens_map.json", "chat_template.jinja"]
    )
    write_files(tuned, ["config.json", "spiece.model"])
    _, files = export(base, tuned, tmp_path / "own")
    assert files == {"config.json", "spiece.model"}  # a tokenizer without a template has none on purpose
    (tuned / "spiece.model").rename(tuned / "tokenizer_config.json")
    _, files = export(base, tuned, tmp_path / "bases")
    assert {"tokenizer.json", "merges.txt", "tokenizer_config.json"} <= files
    assert json.loads((tmp_path / "bases" / "tokenizer_config.json").read_text())["from"] == "tuned"


def test_of_a_folder_of_models_only_what_is_named_after_one(tmp_path):
    base, tuned = write_pair(tmp_path)
    folder = tmp_path / "models"
    folder.mkdir()
    for name, source in (("flux", base), ("mine", tuned)):
        (folder / f"{name}.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    write_files(folder, ["mine.yaml", "flux.yaml", "mine.preview.png"])
    report, files = export(folder / "flux.safetensors", folder / "mine.safetensors", tmp_path / "out")
    assert {"mine.yaml", "mine.preview.png"} <= files and "flux.yaml" not in files
    assert not report["left_behind"]  # of a folder of anything not even the names are told
    (folder / "config.json").write_text("{}")
    report, files = export(folder / "flux.safetensors", folder / "mine.safetensors", tmp_path / "two")
    assert {"mine.yaml", "config.json"} <= files and report["left_behind"][
        "flux.yaml"
    ] == "it belongs to other weights"


def test_a_file_in_a_folder_of_anything_is_repaired_beside_it_and_takes_nothing_along(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name, source in zip(("b", "t"), write_pair(tmp_path), strict=True):
        (folder / f"{name}.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    write_files(folder, ["id_rsa", "tax.pdf", "vocab.txt", "photos/me.jpg", "t.yaml", "t/notes.txt"])
    (folder / "t.json").symlink_to(folder / "id_rsa")
    report, files = export(folder / "b.safetensors", folder / "t.safetensors", folder / "repaired")
    assert files == {"t.safetensors", "model.safetensors.index.json", "t.yaml"}
    assert not report["left_behind"]
    pair = open_pair(folder / "b.safetensors", folder / "t.safetensors")
    pair.refuse_output(folder / "report.html")  # nothing is lost by it
    for taken in (folder, folder / "t.safetensors"):
        with pytest.raises(ExportError, match="the base checkpoint|the tuned checkpoint"):
            pair.refuse_output(taken)
    with pytest.raises(ExportError, match="is the base checkpoint"):
        plan_export(pair, RepairPlan(), folder)


def test_what_another_file_of_tuned_holds_does_not_come_from_base(tmp_path):
    base, tuned = write_pair(tmp_path)
    write_files(base, ["chat_template.jinja", "preprocessor_config.json", "video_preprocessor_config.json"])
    write_files(tuned, ["config.json"])
    (tuned / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (tuned / "processor_config.json").write_text(json.dumps({"image_processor": {"size": 4}}))
    report, files = export(base, tuned, tmp_path / "out")
    assert files == {
        "config.json",
        "tokenizer_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
    }
    assert report["warnings"] == ["video_preprocessor_config.json copied from base: tuned has none"]


def test_an_adapters_output_is_a_whole_model(tmp_path):
    tensors = {"a.weight": torch.randn(64, 32), "b.weight": torch.randn(64, 32)}
    base = write_checkpoint(tmp_path / "base", tensors, {"vocab_size": 9})
    write_files(base, ["tokenizer.json", "modules.json", "preprocessor_config.json"])
    (base / "README.md").write_text("---\nlibrary_name: sentence-transformers\n---\n")
    folder = tmp_path / "adapter"
    folder.mkdir()
    pair = {"lora_A": torch.randn(2, 32), "lora_B": torch.randn(64, 2)}
    save_file(
        {f"base_model.model.a.{key}.weight": value for key, value in pair.items()},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(
        "---\ntags: [lora, mine, 'base_model:adapter:org/base']\nlibrary_name: peft\n---\n"
    )
    write_files(folder, ["tokenizer.json", "optimizer.pt"])
    report, files = export(base, folder, tmp_path / "out")
    assert files == {"config.json", "tokenizer.json", "modules.json", "preprocessor_config.json"}
    assert report["sidecars"]["tokenizer.json"] == "tuned"
    assert report["left_behind"]["adapter_config.json"] == "the adapter is merged"
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert data.base_model == "org/base" and data.library_name == "sentence-transformers"
    assert data.tags == ["mine", "dgviz", "svd", "weight-repair"]


@pytest.mark.parametrize(
    ("card", "cached", "given", "expected"),
    [
        ("org/named", True, "", ["org/named", "me/tuned"]),
        ("org/named", True, "org/given", ["org/given", "me/tuned"]),
        ("/home/me/base", True, "", ["org/cached", "me/tuned"]),
        (None, True, "", ["org/cached", "me/tuned"]),
        (None, False, "", None),
        ("org/named", False, "", "org/named"),
    ],
)
def test_the_card_names_both_ancestors(tmp_path, card, cached, given, expected):
    base, tuned = write_pair(tmp_path, config={"name": "x"})
    if cached:
        for name, path in (("org--cached", base), ("me--tuned", tuned)):
            target = tmp_path / f"models--{name}" / "snapshots" / "abc"
            target.parent.mkdir(parents=True)
            path.rename(target)
        base, tuned = (tmp_path / f"models--{name}" / "snapshots" / "abc" for name in ("org--cached", "me--tuned"))
    said = "" if card is None else f"base_model: {card}\n"
    (tuned / "README.md").write_text(f"---\n{said}language: [de, en]\npipeline_tag: text-generation\n---\n# Mine\n")
    export(base, tuned, tmp_path / "out", base_name=given)
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert data.base_model == expected
    assert data.language == ["de", "en"] and data.pipeline_tag == "text-generation"
