"""Exports: byte-identical files, every tensor there, interrupted runs continued, bad outputs refused."""

import json
import math
import os
import stat
from pathlib import Path

import huggingface_hub.constants
import orjson
import pytest
import torch
import transformers
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dgviz.checkpoint import open_checkpoint, open_pair
from dgviz.errors import ExportError, SpectrumError
from dgviz.export import FORMATS, plan_export
from dgviz.export.manifest import LOCK, MANIFEST, PARTS
from dgviz.export.plan import RUN
from dgviz.export.report import read_report
from dgviz.export.shard import Entry, ShardWriter, file_digest, shard_order
from dgviz.export.write import ExportResult, iter_export
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import Changes
from tests.checkpoints import write_checkpoint, write_pair, write_tiny_pair


def export(pair, plan, out):
    """Run a whole export and return its result."""
    *reports, result = iter_export(plan_export(pair, plan, out), "cpu")
    assert isinstance(result, ExportResult)
    assert {report.name for report in reports} == set(result.tensors)
    return result


def file_bytes(directory):
    """Return the bytes of every file below a directory but the one that tells one run from another."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != RUN)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_a_written_shard_is_byte_identical_to_save_file(tmp_path):
    dtypes = [torch.bool, torch.uint8, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]
    dtypes += [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.int16, torch.uint16, torch.float16, torch.bfloat16]
    dtypes += [torch.int32, torch.uint32, torch.float32, torch.complex64, torch.float64, torch.int64, torch.uint64]
    tensors = {f'{i % 3}.{dtype}.é"': torch.ones(3, i + 1).to(dtype) for i, dtype in enumerate(dtypes)}
    tensors |= {"scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "expected", metadata={"format": "pt"})
    entries = [Entry(name, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in tensors.items()]
    entries.sort(key=lambda entry: shard_order(entry.dtype, entry.name))
    with ShardWriter(tmp_path / "written", entries) as writer:
        for entry in entries:
            writer.write(entry.name, tensors[entry.name].reshape(-1).view(torch.uint8).numpy())
    assert (tmp_path / "written").read_bytes() == (tmp_path / "expected").read_bytes()
    assert writer.digest == file_digest(tmp_path / "written")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "written").stat().st_mode) == 0o666 & ~umask


def test_nothing_half_written_gets_the_final_name(tmp_path):
    entries = [Entry("a", "float32", (2,)), Entry("b", "float32", (2,))]
    with (
        pytest.raises(ExportError, match="1 tensors were never written"),
        ShardWriter(tmp_path / "x", entries) as writer,
    ):
        writer.write("a", bytes(8))
    with (
        pytest.raises(ExportError, match="promises a with 8 bytes next, got b"),
        ShardWriter(tmp_path / "x", entries) as w,
    ):
        w.write("b", bytes(8))
    with pytest.raises(KeyError), ShardWriter(tmp_path / "x", entries):
        raise KeyError("any")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shards", [1, 3])
def test_write_then_read(tmp_path, shards):
    pair = open_pair(*write_pair(tmp_path, shards=shards, config={"name": "synthetic"}))
    result = export(pair, RepairPlan(), tmp_path / "out")
    written = open_checkpoint(tmp_path / "out")
    assert written.shards == pair.tuned.shards
    assert {n: (i.shape, i.dtype) for n, i in written.tensors.items()} == {
        n: (i.shape, i.dtype) for n, i in pair.tuned.tensors.items()
    }
    values = {
        name: tensor for shard in written.shards for name, tensor in load_file(tmp_path / "out" / shard).items()
    }
    tuned = {name: t for shard in pair.tuned.shards for name, t in load_file(pair.tuned.path / shard).items()}
    for paired in pair.tensors:
        if paired.action == "keep":
            assert torch.equal(values[paired.name], tuned[paired.name])
        elif paired.action == "repair":
            assert not torch.equal(values[paired.name], tuned[paired.name])
    for shard in written.shards:
        with safe_open(tmp_path / "out" / shard, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    if shards > 1:
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == written.nbytes
        assert index["weight_map"].keys() == written.tensors.keys()
    sizes = {name: (tmp_path / "out" / name).stat().st_size for name in written.shards}
    assert {name: entry["bytes"] for name, entry in result.report["files"].items()} == sizes
    assert result.report["total_bytes"] == sum(sizes.values())
    report = read_report(tmp_path / "out")
    assert report == orjson.loads(orjson.dumps(result.report))
    assert report["tensors"].keys() == {paired.name for paired in pair.tensors}
    assert not (tmp_path / "out" / MANIFEST).exists() and not (tmp_path / "out" / LOCK).exists()


def test_both_ends_of_tau_are_the_inputs_bit_for_bit(tmp_path):
    base, tuned = write_pair(tmp_path)
    pair = open_pair(base, tuned)
    export(pair, RepairPlan("manual", {"tau": 0}), tmp_path / "all")
    export(pair, RepairPlan("manual", {"tau": math.inf}), tmp_path / "none")
    assert (tmp_path / "all" / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()
    values, before = (load_file(path / "model.safetensors") for path in (tmp_path / "none", base))
    for paired in pair.repairable:
        assert values[paired.name].numpy().tobytes() == before[paired.name].numpy().tobytes()


@pytest.mark.parametrize("family", ["llama_tied", "llama_untied", "gpt2", "qwen3_moe", "vit"])
@pytest.mark.parametrize("sharded", [False, True])
def test_transformers_loads_the_output_completely(tmp_path, family, sharded):
    pair = open_pair(*write_tiny_pair(tmp_path, family, sharded))
    export(pair, RepairPlan(), tmp_path / "out")
    kind = transformers.AutoModelForImageClassification if family == "vit" else transformers.AutoModelForCausalLM
    model, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def test_another_dtype_is_written_everywhere_and_in_the_config(tmp_path):
    pair = open_pair(*write_tiny_pair(tmp_path, "llama_untied", dtype=torch.bfloat16))
    export(pair, RepairPlan(dtype="float32"), tmp_path / "out")
    assert {info.dtype for info in open_checkpoint(tmp_path / "out").tensors.values()} == {"float32"}
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_an_interrupted_export_is_continued_to_the_same_bytes(tmp_path):
    pair = open_pair(*write_pair(tmp_path, shards=3, config={"name": "synthetic"}))
    undisturbed = export(pair, RepairPlan(), tmp_path / "whole")
    run = iter_export(plan_export(pair, RepairPlan(), tmp_path / "out"), "cpu")
    first = {paired.name for paired in plan_export(pair, RepairPlan(), tmp_path / "whole2").shards[0].tensors}
    seen = set()
    while not first < seen:  # well into the second shard
        seen.add(next(run).name)
    run.close()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {MANIFEST, PARTS, pair.tuned.shards[0]}
    before = (tmp_path / "out" / pair.tuned.shards[0]).stat().st_mtime_ns
    resumed = export(pair, RepairPlan(), tmp_path / "out")
    assert (tmp_path / "out" / pair.tuned.shards[0]).stat().st_mtime_ns == before
    assert file_bytes(tmp_path / "out") == file_bytes(tmp_path / "whole")
    assert resumed.tensors.keys() == undisturbed.tensors.keys()


def test_a_finished_shard_that_was_changed_is_written_again(tmp_path):
    pair = open_pair(*write_pair(tmp_path, shards=2))
    run = iter_export(plan_export(pair, RepairPlan(), tmp_path / "out"), "cpu")
    plan = plan_export(pair, RepairPlan(), tmp_path / "whole")
    for _ in range(len(plan.shards[0].tensors) + 1):
        next(run)
    run.close()
    shard = tmp_path / "out" / pair.tuned.shards[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    export(pair, RepairPlan(), tmp_path / "out")
    export(pair, RepairPlan(), tmp_path / "whole")
    assert file_bytes(tmp_path / "out") == file_bytes(tmp_path / "whole")


def test_other_options_do_not_continue_an_export(tmp_path):
    pair = open_pair(*write_pair(tmp_path, shards=2))
    plan = plan_export(pair, RepairPlan(), tmp_path / "out")
    run = iter_export(plan, "cpu")
    for _ in range(len(plan.shards[0].tensors) + 1):
        next(run)
    run.close()
    with pytest.raises(ExportError, match="--rule was dg_hard and is now mp_edge"):
        plan_export(pair, RepairPlan("mp_edge"), tmp_path / "out")
    with pytest.raises(ExportError, match="--dtype was auto and is now float32; repeat the earlier command"):
        plan_export(pair, RepairPlan(dtype="float32"), tmp_path / "out")
    with pytest.raises(ExportError, match="--exclude was not given and is now embed"):
        plan_export(pair, RepairPlan(exclude="embed"), tmp_path / "out")
    with pytest.raises(ExportError, match="--format was full and is now factors"):
        plan_export(pair, RepairPlan(), tmp_path / "out", "factors")


def test_a_failed_first_shard_does_not_block_the_folder(tmp_path):
    base, tuned = write_pair(tmp_path)
    values = load_file(tuned / "model.safetensors")
    values["model.layers.2.mlp.up.weight"][3, 4] = math.inf
    save_file(values, tuned / "model.safetensors")
    with pytest.raises(SpectrumError, match=r"layers\.2\.mlp\.up\.weight.*\[3, 4\]"):
        export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {MANIFEST}
    exclude = r"layers\.2\.mlp\.up"
    export(open_pair(base, tuned, exclude=exclude), RepairPlan(exclude=exclude), tmp_path / "out")


def test_bad_outputs_are_refused(tmp_path):
    base, tuned = write_pair(tmp_path)
    pair = open_pair(base, tuned)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tuned)
    for out, message in [
        (tuned, "is the tuned checkpoint"),
        (base, "is the base checkpoint"),
        (tmp_path, "contains the base checkpoint"),
        (tuned / "out", "lies inside the tuned checkpoint"),
        (tmp_path / "link" / "out", "lies inside the tuned checkpoint"),
        (tmp_path / "used", r"is not empty \(it holds notes.txt\)"),
        (tmp_path / "file", "is a file"),
    ]:
        with pytest.raises(ExportError, match=message):
            plan_export(pair, RepairPlan(), out)
    assert (tmp_path / "used" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_may_be_named_from_here_or_through_a_link(tmp_path, monkeypatch, format):
    pair = open_pair(*write_tiny_pair(tmp_path, "llama_untied"))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    found = []
    for out in (tmp_path / "absolute", Path("here"), Path("./link/through"), Path("real/../up")):
        list(iter_export(plan_export(pair, RepairPlan("fixed_rank", {"rank": 2}), out, format), "cpu"))
        weights = sorted(out.glob("*.safetensors"))
        found.append({path.name: path.read_bytes() for path in weights})
    assert found[0] and all(files == found[0] for files in found)


def test_a_folder_that_may_not_be_written_is_refused_first(tmp_path, monkeypatch):
    pair = open_pair(*write_pair(tmp_path))
    (tmp_path / "theirs").mkdir(mode=0o555)
    if os.access(tmp_path / "theirs", os.W_OK):  # nothing is closed to root
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path / "theirs"))
    with pytest.raises(ExportError, match="theirs may not be written; choose another folder"):
        plan_export(pair, RepairPlan(), tmp_path / "theirs" / "out")


def test_the_cache_of_the_hub_is_no_place_for_an_output(tmp_path, monkeypatch):
    pair = open_pair(*write_pair(tmp_path / "pair"))
    cache = tmp_path / "hub"
    for folder in ("models--me--tiny/snapshots", "models--me--tiny/blobs"):
        (cache / folder).mkdir(parents=True)
    message = "lies in the Hugging Face cache"
    with pytest.raises(ExportError, match=message):
        plan_export(pair, RepairPlan(), cache / "models--me--tiny" / "snapshots" / "mine")
    plan_export(pair, RepairPlan(), cache / "models--me--other")  # another folder, as far as anybody knows
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    with pytest.raises(ExportError, match=message):
        plan_export(pair, RepairPlan(), cache / "models--me--other")


def test_what_was_set_back_to_base_counts_as_changed():
    def row(written, zeros=None, action="repair"):
        matrices = [] if zeros is None else [{"zero_share": share} for share in zeros]
        return {"action": action, "written": written, "matrices": matrices}

    rows = [row("repaired"), row("base bytes", [0.5, 1.0]), row("tuned bytes", [0.0]), row("base bytes", [1.0])]
    rows += [row("nothing", [0.1]), row("tuned bytes", action="keep"), row("nothing", action="base_only")]
    assert Changes.of(rows) == Changes(5, 3, 2)
    assert Changes.of(rows).words == "3 of 5 repairable tensors changed, 2 of them set back to base"
    assert Changes.of(rows[1:3]).words == "1 of 2 repairable tensors changed, all of them set back to base"
    stack = row("repaired") | {"matrices": [{"sparsity": 1.0, "zero_share": 0.1}, {"zero_share": 1.0}]}
    mixed = row("repaired") | {"matrices": [{"sparsity": 1.0, "zero_share": 0.1}, {"sparsity": 0.2}]}
    assert Changes.of([stack, mixed, row("base, cast"), row("tuned, cast", [0.3])]) == Changes(4, 3, 2)
    assert Changes.of(rows[:1]).words == "1 of 1 repairable tensors changed"


def test_two_writers_of_one_output(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    plan = plan_export(pair, RepairPlan(), tmp_path / "out")
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / LOCK), pytest.raises(ExportError, match="another process is writing"):
        next(iter_export(plan, "cpu"))


def test_too_little_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    pair = open_pair(*write_pair(tmp_path))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ExportError, match=r"needs \d.* KiB and the disk has 1,000 B free"):
        plan_export(pair, RepairPlan(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sidecars_come_from_tuned_then_base_and_code_never(tmp_path):
    base, tuned = write_pair(tmp_path)
    for path, names in ((base, ["config.json", "tokenizer.json", "LICENSE"]), (tuned, ["config.json", "LICENSE"])):
        for name in names:
            (path / name).write_text(json.dumps({"from": path.name}))
    for name in ("modeling_x.py", "trainer_state.json", "README.md", "optimizer.pt", "training_args.bin"):
        (tuned / name).write_text("no")
    (tuned / "additional_chat_templates").mkdir()
    (tuned / "additional_chat_templates" / "tool.jinja").write_text("{{ x }}")
    result = export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")
    own = {"model.safetensors", "dgviz.json", "dgviz.run.json", "README.md"}
    files = {name for name in file_bytes(tmp_path / "out") if name not in own}
    assert files == {"config.json", "tokenizer.json", "LICENSE", "additional_chat_templates/tool.jinja"}
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"from": "tuned"}
    assert "tokenizer.json copied from base: tuned has none" in result.report["warnings"]


def test_base_only_and_tuned_only_tensors_are_reported(tmp_path):
    shared = torch.randn(64, 32)
    write_checkpoint(tmp_path / "base", {"w.weight": shared, "mtp.weight": torch.randn(64, 32)})
    write_checkpoint(
        tmp_path / "tuned", {"w.weight": shared + torch.randn(64, 32), "head.weight": torch.randn(64, 32)}
    )
    result = export(open_pair(tmp_path / "base", tmp_path / "tuned"), RepairPlan(), tmp_path / "out")
    assert (
        result.tensors["mtp.weight"]["action"] == "base_only" and result.tensors["mtp.weight"]["written"] == "nothing"
    )
    assert result.tensors["head.weight"]["action"] == "keep"
    assert set(open_checkpoint(tmp_path / "out").tensors) == {"w.weight", "head.weight"}


def test_an_input_replaced_by_an_equal_file_while_it_is_read_is_none(tmp_path):
    pair = open_pair(*write_pair(tmp_path, shards=2))
    run = iter_export(plan_export(pair, RepairPlan(), tmp_path / "out"), "cpu")
    next(run)
    for shard in pair.tuned.shards:
        path = pair.tuned.path / shard
        values = load_file(path)
        save_file(values, path.with_suffix(".new"), metadata={"format": "pt"})
        path.with_suffix(".new").replace(path)
    assert len(list(run)) == len(pair.tensors)  # the same values: only time stamps and the file itself are new


def test_an_input_changed_while_it_is_read_is_an_error(tmp_path):
    pair = open_pair(*write_pair(tmp_path, shards=2))
    run = iter_export(plan_export(pair, RepairPlan(), tmp_path / "out"), "cpu")
    first = next(run)
    path = pair[first.name].tuned.file
    values = load_file(path)
    values[first.name] = values[first.name] + 1
    save_file(values, path.with_suffix(".new"), metadata={"format": "pt"})
    path.with_suffix(".new").replace(path)
    with pytest.raises(ExportError, match=f"holds other values for '{first.name}' than when .* was begun"):
        list(run)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_one_numbered_shard_keeps_its_index(tmp_path):
    base, tuned = write_pair(tmp_path)
    (tuned / "model.safetensors").rename(tuned / "model-00001-of-00001.safetensors")
    names = load_file(tuned / "model-00001-of-00001.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (tuned / "model.safetensors.index.json").write_text(json.dumps(index))
    export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")
    assert open_checkpoint(tmp_path / "out").shards == ("model-00001-of-00001.safetensors",)


def test_a_config_with_infinity_survives_another_dtype(tmp_path):
    base, tuned = write_pair(tmp_path)
    text = '{"time_step_limit": [0.0, Infinity], "big": 123456789012345678901, "dtype": "float32"}'
    (tuned / "config.json").write_text(text)
    export(open_pair(base, tuned), RepairPlan(dtype="bfloat16"), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["time_step_limit"] == [0.0, math.inf] and config["big"] == 123456789012345678901
    assert config["dtype"] == "bfloat16"


def test_a_folder_filled_since_the_plan_is_not_overwritten(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    early = plan_export(pair, RepairPlan("mp_edge"), tmp_path / "out")
    export(pair, RepairPlan(), tmp_path / "out")
    before = file_bytes(tmp_path / "out")
    with pytest.raises(ExportError, match="is not empty"):
        list(iter_export(early, "cpu"))
    assert file_bytes(tmp_path / "out") == before


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{MANIFEST}.partial").write_text("{")
    (tmp_path / "out" / LOCK).touch()
    export(pair, RepairPlan(), tmp_path / "out")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / MANIFEST).write_text(
        json.dumps({"version": 5, "options": {"dtype": "float16"}, "finished": False})
    )
    (tmp_path / "two" / "model-00001-of-00004.safetensors.partial").write_text("half")
    export(pair, RepairPlan(), tmp_path / "two")
    assert file_bytes(tmp_path / "two") == file_bytes(tmp_path / "out")


@pytest.mark.parametrize(
    "manifest",
    [
        "{}",
        "[]",
        '{"version": 5}',
        '{"version": 5, "options": {}}',
        '{"version": 4, "options": {}, "finished": false}',
        '{"identity": "1", "shards": {}}',
        "{",
    ],
)
def test_a_spoiled_manifest_is_a_sentence(tmp_path, manifest):
    pair = open_pair(*write_pair(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text(manifest)
    with pytest.raises(ExportError, match="delete the folder and export again"):
        plan_export(pair, RepairPlan(), tmp_path / "out")


def test_an_output_that_cannot_be_made(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "deep")
    (tmp_path / "file").touch()
    for out, message in (
        (tmp_path / "dangling", "dangling failed: File exists; nothing was written, choose another folder"),
        (tmp_path / "loop", "loop failed: File exists; nothing was written, choose another folder"),
        (tmp_path / ("x" * 300), "xxx cannot be made: File name too long; choose another folder"),
        (tmp_path / "file" / "below", "file/below cannot be made: .*/file is a file; choose another folder"),
    ):
        with pytest.raises(ExportError, match=message):
            list(iter_export(plan_export(pair, RepairPlan(), out), "cpu"))
    with pytest.raises(ExportError, match="has no name"):
        plan_export(pair, RepairPlan(), " ")
