"""PyTorch .bin files: only on request, never unpickled beyond tensors, read by offset."""

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from dgviz.checkpoint import open_checkpoint, open_pair, read_tensor
from dgviz.errors import CheckpointError
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import planted_update, random_tensors, tiny_model, tune, write_checkpoint, write_index


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.setenv("DGVIZ_ALLOW_BIN", "1")


def message(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_bin(directory, tensors, name="pytorch_model.bin"):
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, directory / name)
    return directory


class Evil:
    """What a hostile pickle does: run code when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_bin_file_is_read_on_request_only(tmp_path, monkeypatch):
    directory = write_bin(tmp_path, random_tensors())
    assert "PyTorch pickles (pytorch_model.bin), which are not read yet: set DGVIZ_ALLOW_BIN=1" in message(directory)
    monkeypatch.setenv("DGVIZ_ALLOW_BIN", "1")
    assert open_checkpoint(directory).shards == ("pytorch_model.bin",)


def test_a_pickle_of_another_name_is_told_which_names_are_read(tmp_path, allowed):
    write_bin(tmp_path, random_tensors(), "model.pt")
    for path in (tmp_path, tmp_path / "model.pt"):
        found = message(path)
        assert "model.pt" in found and "of which pytorch_model.bin is read, or the shards that" in found
        assert "DGVIZ_ALLOW_BIN" not in found


def test_a_shard_stands_for_its_index(tmp_path, allowed):
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    tensors = list(random_tensors().items())
    for name, part in zip(names, (tensors[:4], tensors[4:]), strict=True):
        write_bin(tmp_path, dict(part), name)
    assert "of which pytorch_model.bin is read" in message(tmp_path / names[0])  # which nothing completes
    weight_map = {name: names[number >= 4] for number, (name, _) in enumerate(tensors)}
    write_index(tmp_path, weight_map)
    (tmp_path / "model.safetensors.index.json").rename(tmp_path / "pytorch_model.bin.index.json")
    for path in (tmp_path, *(tmp_path / name for name in names)):
        opened = open_checkpoint(path)
        assert opened.shards == tuple(names) and opened.tensors.keys() == dict(tensors).keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_tensor_is_read_byte_for_byte(tmp_path, allowed, dtype):
    tensors = random_tensors(dtype=dtype)
    tensors["view"] = tensors["model.embed_tokens.weight"][3:9]
    opened = open_checkpoint(write_bin(tmp_path, tensors))
    assert opened.tensors.keys() == tensors.keys()
    for name, info in opened.tensors.items():
        assert torch.equal(read_tensor(info), tensors[name]) and f"torch.{info.dtype}" == str(tensors[name].dtype)


def test_a_sharded_bin_pair_is_exported_as_safetensors(tmp_path, allowed):
    model = tiny_model("llama_untied")
    model.save_pretrained(tmp_path / "base")
    state = tune(model).state_dict()
    shards = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    placed = {name: shards[number % 2] for number, name in enumerate(state)}
    for shard in shards:
        write_bin(tmp_path / "tuned", {name: state[name] for name in state if placed[name] == shard}, shard)
    write_index(tmp_path / "tuned", placed)
    (tmp_path / "tuned" / "model.safetensors.index.json").rename(tmp_path / "tuned" / "pytorch_model.bin.index.json")
    model.config.save_pretrained(tmp_path / "tuned")
    pair = open_pair(tmp_path / "base", tmp_path / "tuned")
    assert pair.counts()["base_only"] == 0
    list(iter_export(plan_export(pair, RepairPlan("manual", {"tau": 0.0}), tmp_path / "out"), "cpu"))
    names = sorted(file.name for file in (tmp_path / "out").glob("model*"))
    assert names[:2] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] and len(names) == 3
    again = type(model).from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_a_mixed_pair(tmp_path, allowed):
    tensors = random_tensors()
    base = write_bin(tmp_path / "b", tensors)
    pair = open_pair(base, write_checkpoint(tmp_path / "t", planted_update(tensors)))
    list(iter_export(plan_export(pair, RepairPlan("fixed_rank", {"rank": 0}), tmp_path / "out"), "cpu"))
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(written[row.name], tensors[row.name]) for row in pair.repairable)


def test_a_hostile_pickle_runs_nothing(tmp_path, allowed):
    for content in ({"a": torch.ones(3), "b": Evil(tmp_path / "ran")}, Evil(tmp_path / "ran")):
        write_bin(tmp_path / "m", content)
        assert "cannot be read as plain tensors (UnpicklingError" in message(tmp_path / "m")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    assert "cannot be read as plain tensors" in message(tmp_path / "m")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([torch.ones(3)], "holds no mapping"),
        ({}, "holds no mapping"),
        ({"model": {"w": torch.ones(3)}}, "holds 'model', a dict, not a tensor with a name"),
        ({"epoch": 3}, "holds 'epoch', a int"),
        ({3: torch.ones(3)}, "holds '3', a tensor, not a tensor with a name"),
        ({"a\n": torch.ones(3)}, "a tensor, not a tensor with a name"),
        ({"w": torch.ones(3, 4).t()}, "is not stored as plain contiguous numbers"),
        ({"w": torch.ones(3, 4).to_sparse()}, "as plain "),
    ],
)
def test_what_is_no_plain_mapping(tmp_path, allowed, content, complaint):
    assert complaint in message(write_bin(tmp_path, content))


def test_damaged_and_old_files(tmp_path, allowed):
    file = write_bin(tmp_path, random_tensors()) / "pytorch_model.bin"
    raw = file.read_bytes()
    for damaged in (b"", raw[: len(raw) // 2], raw[:100], b"x" * 1000):
        file.write_bytes(damaged)
        assert "cannot be read as plain tensors" in message(tmp_path)
    torch.save({"w": torch.ones(3)}, file, _use_new_zipfile_serialization=False)
    assert "'w' is not stored as plain contiguous numbers in a zip file" in message(tmp_path)


def test_only_uncompressed_whole_records_are_taken_for_numbers(tmp_path, allowed):
    file = write_bin(tmp_path / "m", {"w": torch.zeros(64, 64), "pad": torch.randn(64, 64)}) / "pytorch_model.bin"
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}

    def rewrite(method, cut=None):
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in entries.items():
                own = "/data/" in name
                kind = method if own else zipfile.ZIP_STORED
                archive.writestr(name, data[:cut] if own else data, compress_type=kind)

    for method, cut in ((zipfile.ZIP_STORED, None), (zipfile.ZIP_DEFLATED, None), (zipfile.ZIP_STORED, 100)):
        rewrite(method, cut)  # in the first, only the places differ from those that torch reckons with
        assert "is not stored uncompressed in a record of its own" in message(file.parent)
