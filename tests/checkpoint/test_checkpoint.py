"""Opening, reading and fingerprinting checkpoints: what is found, what is refused, and in which words."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file

from dgviz.checkpoint import (
    content_hash,
    fingerprint,
    is_hashed,
    known_hashes,
    open_checkpoint,
    read,
    read_bytes,
    read_tensor,
)
from dgviz.checkpoint.header import DTYPES, read_header
from dgviz.errors import CheckpointError
from tests.checkpoints import random_tensors, write_checkpoint, write_index, write_pair, write_raw

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Give every test a cache of its own."""
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refusal(call, *args, kind=CheckpointError, **kwargs) -> str:
    """Return the message of the error that a call raises; it must be one line."""
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
def test_open_finds_every_tensor(tmp_path, shards):
    tensors = random_tensors()
    config = {"model_type": "llama", "time_step_limit": [0.0, float("inf")]}  # Mamba 2 configs hold Infinity
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "m", tensors, config, shards))
    assert set(checkpoint.tensors) == set(tensors)
    assert len(checkpoint.shards) == shards and all((checkpoint.path / name).is_file() for name in checkpoint.shards)
    assert checkpoint.config == config
    assert checkpoint.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    for name, tensor in tensors.items():
        info = checkpoint.tensors[name]
        assert (info.name, info.shape, info.numel) == (name, tuple(tensor.shape), tensor.numel())
        assert f"torch.{info.dtype}" == str(tensor.dtype)
        assert torch.equal(read_tensor(info), tensor)


def test_names_are_in_natural_order(tmp_path):
    names = list(open_checkpoint(write_checkpoint(tmp_path / "m", random_tensors())).tensors)
    assert names.index("model.layers.2.mlp.up.weight") < names.index("model.layers.10.mlp.up.weight")


def test_open_a_file_opens_its_directory(tmp_path, monkeypatch):
    directory = write_checkpoint(tmp_path / "m", random_tensors(), shards=2)
    whole = open_checkpoint(directory)
    assert open_checkpoint(directory / whole.shards[1]) == whole
    assert open_checkpoint(directory / "model.safetensors.index.json") == whole
    monkeypatch.chdir(directory)
    assert open_checkpoint(Path(whole.shards[0])) == whole
    (directory / "other.safetensors").write_bytes((directory / whole.shards[0]).read_bytes())
    assert open_checkpoint(directory / "other.safetensors").shards == ("other.safetensors",)
    (directory / "model.safetensors.index.json").unlink()
    assert "is one of several shards, and no index" in refusal(open_checkpoint, directory / whole.shards[0])


def test_the_only_weight_file_may_have_another_name(tmp_path):
    directory = write_checkpoint(tmp_path / "m", random_tensors())
    (directory / "model.safetensors").rename(directory / "first.safetensors")
    assert open_checkpoint(directory).shards == ("first.safetensors",)
    (directory / "second.safetensors").write_bytes(b"")
    assert "first.safetensors, second.safetensors" in refusal(open_checkpoint, directory)


def test_config_may_name_the_weights(tmp_path):
    directory = write_checkpoint(tmp_path / "m", random_tensors(), {"transformers_weights": "own.safetensors"})
    assert "transformers_weights" in refusal(open_checkpoint, directory)
    save_file({"only": torch.ones(2)}, directory / "own.safetensors")
    assert list(open_checkpoint(directory).tensors) == ["only"]
    (directory / "config.json").write_text('{"transformers_weights": "../m/own.safetensors"}')
    assert "'../m/own.safetensors' as transformers_weights" in refusal(open_checkpoint, directory)


def test_a_hub_cache_snapshot_of_links_opens(tmp_path):
    source = write_checkpoint(tmp_path / "source", random_tensors(), {"a": 1}, shards=2)
    blobs, snapshot = tmp_path / "models--o--n" / "blobs", tmp_path / "models--o--n" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(source.iterdir())):
        (blobs / str(i)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))
    linked = open_checkpoint(snapshot)
    assert linked.tensors.keys() == open_checkpoint(source).tensors.keys()
    assert linked.path == snapshot  # names and sidecars are those of the snapshot, not of the blobs
    assert open_checkpoint(snapshot / linked.shards[0]) == linked
    assert "snapshots" in refusal(open_checkpoint, tmp_path / "models--o--n")


def test_the_fingerprint_follows_the_files(tmp_path):
    directory = write_checkpoint(tmp_path / "m", random_tensors(), {"a": 1}, shards=2)
    first = open_checkpoint(directory)
    assert open_checkpoint(directory).fingerprint == first.fingerprint
    os.utime(directory / first.shards[1], ns=(0, 0))
    second = open_checkpoint(directory)
    (directory / "config.json").write_text('{"a": 2}')
    assert len({first.fingerprint, second.fingerprint, open_checkpoint(directory).fingerprint}) == 3


# --- refusals: nothing to open --------------------------------------------------------------------------------------


def test_missing_paths(tmp_path):
    assert refusal(open_checkpoint, tmp_path / "nowhere").endswith(
        "cannot be opened (no such file or directory): give an existing directory of *.safetensors weights"
    )
    assert "`python -m dgviz fetch org/name-7B@v1.0` or" in refusal(open_checkpoint, "org/name-7B@v1.0")
    assert "no path given" in refusal(open_checkpoint, " ")
    assert "cannot be opened" in refusal(open_checkpoint, "a\0b")
    assert "cannot be opened" in refusal(open_checkpoint, "~no-such-user-here/model")


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        (None, "but it is empty"),
        ("notes.txt", "give the directory that holds them"),
        ("pytorch_model.bin", "PyTorch pickles (pytorch_model.bin), which are not read yet"),
        ("model-Q4.gguf", "GGUF files (model-Q4.gguf), which are not read yet: use the original"),
        ("tf_model.h5", "weights of another framework (tf_model.h5)"),
        ("model-00001-of-00002.safetensors", "fetch the missing index or shards"),
    ],
)
def test_no_weights_says_what_is_there(tmp_path, file, hint):
    if file:
        (tmp_path / file).write_text("{}")
    message = refusal(open_checkpoint, tmp_path)
    assert "looked for model.safetensors and model.safetensors.index.json" in message
    assert hint in message


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("../../blobs/gone")
    assert "model.safetensors is a link to a file that is gone: fetch it again" in refusal(open_checkpoint, tmp_path)


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"lora_A": torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")
    assert "PEFT adapter" in refusal(open_checkpoint, tmp_path)


def test_single_file_and_index_together(tmp_path):
    directory = write_checkpoint(tmp_path / "m", random_tensors(), shards=2)
    write_checkpoint(directory, random_tensors())
    assert "both model.safetensors and model.safetensors.index.json" in refusal(open_checkpoint, directory)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", '{"a": 1}}'])
def test_bad_config(tmp_path, text):
    directory = write_checkpoint(tmp_path / "m", random_tensors())
    (directory / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json is" in refusal(open_checkpoint, directory)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable_file(tmp_path):
    directory = write_checkpoint(tmp_path / "m", random_tensors())
    (directory / "model.safetensors").chmod(0)
    assert "cannot be read: Permission denied" in refusal(open_checkpoint, directory)


# --- refusals: index and shards -------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path):
    """Return a sound sharded checkpoint with its weight map, to be broken."""
    directory = write_checkpoint(tmp_path / "m", random_tensors(), shards=3)
    return directory, json.loads((directory / "model.safetensors.index.json").read_text())["weight_map"]


def test_missing_shard(sharded):
    directory, _ = sharded
    (directory / "model-00002-of-00003.safetensors").unlink()
    message = refusal(open_checkpoint, directory)
    assert "names shards that are not there: 'model-00002-of-00003.safetensors'; fetch the missing" in message


def test_index_entry_without_tensor(sharded):
    directory, weight_map = sharded
    write_index(directory, weight_map | {f"ghost.{i}": "model-00001-of-00003.safetensors" for i in range(5)})
    assert "no shard holds: 'ghost.0', 'ghost.1', 'ghost.2' and 2 more" in refusal(open_checkpoint, directory)


def test_tensor_in_another_shard(sharded):
    directory, weight_map = sharded
    right = weight_map["model.norm.weight"]
    wrong = next(shard for shard in weight_map.values() if shard != right)
    write_index(directory, weight_map | {"model.norm.weight": wrong})
    assert f"puts tensor 'model.norm.weight' into {wrong}, but it is in {right}" in refusal(
        open_checkpoint, directory
    )


def test_tensor_that_the_index_does_not_list(sharded):
    directory, weight_map = sharded
    shard = weight_map.pop("model.norm.weight")
    write_index(directory, weight_map)
    message = refusal(open_checkpoint, directory)
    assert "does not list: 'model.norm.weight'" in message and shard in message


def test_tensor_in_two_shards_must_be_the_same(tmp_path):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    save_file({"a": torch.ones(4), "b": torch.ones(4)}, tmp_path / first)
    save_file({"b": torch.ones(4), "c": torch.ones(4)}, tmp_path / second)
    write_index(tmp_path, {"a": first, "b": second, "c": second})
    assert open_checkpoint(tmp_path).tensors["b"].file.name == second
    save_file({"b": torch.zeros(4), "c": torch.ones(4)}, tmp_path / second)
    assert "tensor 'b' is in" in refusal(open_checkpoint, tmp_path)


@pytest.mark.parametrize(
    "shard", ["/etc/x.safetensors", "../x.safetensors", "sub/x.safetensors", "C:\\x.safetensors", "x.bin", 7, None]
)
def test_unsafe_shard_names(sharded, shard):
    directory, weight_map = sharded
    write_index(directory, weight_map | {"model.norm.weight": shard})
    message = refusal(open_checkpoint, directory)
    assert f"into {shard!r}: a shard must be a *.safetensors file name in the same directory" in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is a JSON list, not an object"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "key 'a' is there twice"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"metadata": {}}', "has no weight_map"),
    ],
)
def test_bad_index(sharded, text, complaint):
    directory, _ = sharded
    (directory / "model.safetensors.index.json").write_text(text)
    assert complaint in refusal(open_checkpoint, directory)


def test_oversized_index_is_not_read(sharded):
    directory, _ = sharded
    with (directory / "model.safetensors.index.json").open("r+b") as stream:
        stream.truncate(256_000_001)  # sparse: takes no disk
    assert "above the cap of 256000000" in refusal(open_checkpoint, directory)


# --- refusals: headers ----------------------------------------------------------------------------------------------

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b"{", "is not valid JSON"),
        (b"[]", "has no header that begins with '{'"),
        (b"{\xff\xfe}", "is not valid JSON"),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [-0, 8]}}', "is refused by safetensors (Error"),
        (b'{"a":' * 100_000, "is not valid JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not valid JSON"),
        (b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2), "key 'a' is there twice"),
        (b'{"a":1,"a":%s}' % json.dumps(ENTRY).encode(), "key 'a' is there twice"),
        (b'{"a":%s,"\\u0061":%s}' % ((json.dumps(ENTRY).encode(),) * 2), "key 'a' is there twice"),
        (b'{"a":{"shape":2,%s}' % json.dumps(ENTRY).encode()[1:], "key 'shape' is there twice"),
        (b'{"__metadata__":{"b":"1","b":"2"},"a":%s}' % json.dumps(ENTRY).encode(), "key 'b' is there twice"),
        ({"": ENTRY}, "holds a tensor called ''"),
        ({"a\nb": ENTRY}, "holds a tensor called 'a\\nb'"),
        ({"a\x7f": ENTRY}, "control characters are refused"),
        ({"a\ud800": ENTRY}, "holds a tensor called 'a\\ud800'"),
        ({"a": 3}, "needs exactly dtype, shape and data_offsets"),
        ({"a": ENTRY | {"extra": 1}}, "needs exactly dtype, shape and data_offsets"),
        ({"a": ENTRY | {"dtype": "F4"}}, "has dtype 'F4', which is not read"),
        ({"a": ENTRY | {"dtype": ["F32"]}}, "has dtype ['F32'], which is not read"),
        ({"a": ENTRY | {"shape": [2.0]}}, "has shape [2.0], not a list of sizes"),
        ({"a": ENTRY | {"shape": [True, 2]}}, "not a list of sizes"),
        ({"a": ENTRY | {"shape": [-2]}}, "not a list of sizes"),
        ({"a": ENTRY | {"shape": [0, 2**63], "data_offsets": [0, 0]}}, "not a list of sizes"),
        ({"a": ENTRY | {"shape": 2}}, "not a list of sizes"),
        ({"a": ENTRY | {"data_offsets": [8, 0]}}, "has data_offsets [8, 0], not [begin, end]"),
        ({"a": ENTRY | {"data_offsets": [0]}}, "not [begin, end]"),
        ({"a": ENTRY | {"shape": [3]}}, "has 8 bytes of data, but float32 of shape (3,) needs 12"),
        ({"a": ENTRY | {"data_offsets": [4, 12]}}, "leaves a hole before it"),
        ({"a": ENTRY, "b": ENTRY}, "overlaps the one before"),
        ({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 16]}}, "is truncated: its tensors need"),
        ({}, "bytes where its tensors end at"),
        ({"__metadata__": {"format": 1}, "a": ENTRY}, "__metadata__ must map strings to strings"),
        ({"__metadata__": [], "a": ENTRY}, "__metadata__ must map strings to strings"),
    ],
)
def test_bad_headers(tmp_path, header, complaint):
    file = write_raw(tmp_path / "model.safetensors", header, bytes(8))
    message = refusal(open_checkpoint, tmp_path)
    assert complaint in message and str(file) in message


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"", "is truncated: it has 0 bytes"),
        (b"\x01\x02\x03", "is truncated: it has 3 bytes"),
        ((2**40).to_bytes(8, "little"), "announces a header of 1099511627776 bytes"),
        ((50).to_bytes(8, "little") + b"{}", "is truncated: its header needs 58 bytes and the file has 10"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        ((4).to_bytes(8, "little") + b"  {}", "has no header that begins with '{'"),
        ((2).to_bytes(8, "little") + b"{}", "holds no tensors"),
    ],
)
def test_bad_files(tmp_path, contents, complaint):
    (tmp_path / "model.safetensors").write_bytes(contents)
    assert complaint in refusal(open_checkpoint, tmp_path)


def test_a_truncated_download(tmp_path):
    directory = write_checkpoint(tmp_path / "m", random_tensors())
    file = directory / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    assert "is truncated: its tensors need" in refusal(open_checkpoint, directory)


SOUND = save({"a": torch.ones(3, 2), "b.c": torch.zeros(5, dtype=torch.int8)}, metadata={"format": "pt"})
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.sampled_from(["F32", "I8", "a", "", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "a"]), inner),
    max_leaves=5,
)
SIZES = st.lists(st.integers(0, 4), max_size=3)
ENTRIES = JUNK | st.fixed_dictionaries(
    {"dtype": st.sampled_from(list(DTYPES)) | JUNK, "shape": SIZES | JUNK, "data_offsets": SIZES | JUNK}
)


@st.composite
def damaged_files(draw):
    """Draw a sound file with some bytes replaced, removed or inserted, or one with a header made up."""
    if draw(st.booleans()):
        header = draw(st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), ENTRIES, max_size=3))
        raw = json.dumps(header).encode()
        return len(raw).to_bytes(8, "little") + raw + bytes(draw(st.integers(0, 30)))
    data = bytearray(SOUND)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=damaged_files())
def test_any_file_is_read_rightly_or_refused_in_one_line(tmp_path, contents):
    file = tmp_path / "model.safetensors"
    file.write_bytes(contents)
    try:
        tensors = read_header(file).tensors
    except CheckpointError as error:
        assert str(error).startswith(("the header of", str(file))) and "\n" not in str(error)
        return
    with safe_open(file, framework="pt") as reference:
        assert set(reference.keys()) == set(tensors)
        for name, info in tensors.items():
            expected = reference.get_tensor(name)
            assert torch.equal(read_tensor(info).view(torch.uint8), expected.contiguous().view(torch.uint8))


def test_what_we_accept_safetensors_accepts():
    """The extra strictness is real: the reference takes what read_header refuses for its names."""
    raw = b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2)
    from safetensors import deserialize

    assert deserialize(len(raw).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(SafetensorError):
        deserialize(b"\x02" + bytes(7) + b"[]")


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(name for name, _ in DTYPES.values()))
def test_every_dtype_is_read_byte_for_byte(tmp_path, dtype):
    torch_dtype = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    high = 2 if dtype == "bool" else 256
    raw = torch.randint(0, high, (5 * 3 * torch_dtype.itemsize,), dtype=torch.uint8, generator=generator)
    tensor = raw.view(torch_dtype).reshape(5, 3)
    # A byte first, so that nothing but luck would align the data.
    save_file({"z": torch.ones(1, dtype=torch.uint8), "w": tensor}, tmp_path / "model.safetensors")
    info = open_checkpoint(tmp_path).tensors["w"]
    assert info.dtype == dtype
    assert bytes(read_bytes(info)) == raw.numpy().tobytes()
    read = read_tensor(info)
    assert read.dtype == torch_dtype and read.shape == (5, 3)
    assert torch.equal(read.view(torch.uint8).flatten(), raw)
    assert torch.equal(read_tensor(info, 3).view(torch.uint8), tensor[3].view(torch.uint8))


def test_read_ranges(tmp_path):
    info = open_checkpoint(write_checkpoint(tmp_path / "m", random_tensors())).tensors["model.norm.weight"]
    whole = bytes(read_bytes(info))
    assert bytes(read_bytes(info, 8)) == whole[8:] and bytes(read_bytes(info, 4, 12)) == whole[4:16]
    assert bytes(read_bytes(info, info.nbytes)) == b"" == bytes(read_bytes(info, 5, 0))
    for start, nbytes in ((-1, None), (0, info.nbytes + 1), (info.nbytes + 1, None), (4, -1)):
        with pytest.raises(ValueError, match="lie outside"):
            read_bytes(info, start, nbytes)


def test_files_kept_open_are_read_alike_few_at_a_time_and_closed_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "_MOST_OPEN", 2)
    tensors = random_tensors()
    opened = open_checkpoint(write_checkpoint(tmp_path / "sharded", tensors, shards=5)).tensors.values()
    alone = {info.name: bytes(read_bytes(info)) for info in opened}
    before = psutil.Process().num_fds()
    with read.files_kept_open():
        for _ in range(2):
            assert {info.name: bytes(read_bytes(info)) for info in opened} == alone
            assert 0 < psutil.Process().num_fds() - before <= 2
        with read.files_kept_open():
            read_bytes(next(iter(opened)))
        link = tmp_path / "sharded" / "link.safetensors"
        link.symlink_to(write_checkpoint(tmp_path / "other", tensors) / "model.safetensors")
        assert "outside its directory" in refusal(read_bytes, replace(next(iter(opened)), file=link))
    assert psutil.Process().num_fds() == before


def test_many_samples_are_those_of_each_alone(tmp_path):
    sizes = [1, 5, 1024, 1025, 2048, 3000, 4096, 4097, 20_000, 7, 1024, 0, 1500]
    tensors = {f"t{i}": torch.randn(size) for i, size in enumerate(sizes)}
    infos = list(open_checkpoint(write_checkpoint(tmp_path, tensors, shards=2)).tensors.values())[::-1]
    assert read.read_samples(infos) == [read.read_sample(info) for info in infos]
    part = replace(infos[0], start=infos[0].start + 64, nbytes=128)  # inside another
    assert read.read_samples([*infos, part, infos[3]])[-2:] == [read.read_sample(part), read.read_sample(infos[3])]
    whole = read.read_samples(infos)
    with read.samples_kept():
        assert len(list(read.read_small(infos[:9]))) > 6  # what is read for another purpose is sampled by the way
        change_in_place(infos[2], 0)
        assert read.read_samples(infos) == whole
        change_in_place(infos[-1], 0)
        assert read.read_samples(infos) == whole
    again = read.read_samples(infos)
    changed = [place for place, sample in enumerate(again) if sample != whole[place]]
    assert changed == [2, len(infos) - 1]
    last = max((info for info in infos if info.file == infos[0].file), key=lambda info: info.start)
    os.truncate(last.file, last.start + last.nbytes - 1)
    assert f"ends inside tensor '{last.name}'" in refusal(read.read_samples, infos)


def test_a_slice_reads_its_own_bytes_only(tmp_path):
    tensors = {
        "e": torch.arange(24.0).reshape(4, 3, 2),
        "led": torch.arange(6.0).reshape(1, 3, 2),
        "s": torch.ones(1),
    }
    directory = write_checkpoint(tmp_path / "m", tensors)
    infos = open_checkpoint(directory).tensors
    assert torch.equal(read_tensor(infos["led"], 2), tensors["led"][0, 2])
    for name, index in (("e", 4), ("e", -1), ("s", 0)):
        with pytest.raises(IndexError, match=f"no slice {index} in '{name}'"):
            read_tensor(infos[name], index)
    # Cut inside the last slice: the others are still there.
    last = infos["e"].slice(3)
    os.truncate(last.file, last.start + 1)
    assert torch.equal(read_tensor(infos["e"], 2), tensors["e"][2])
    assert "ends inside tensor 'e'" in refusal(read_tensor, infos["e"], 3)


def test_empty_and_scalar_tensors(tmp_path):
    tensors = {"empty": torch.empty(0, 7), "scalar": torch.tensor(2.5)}
    infos = open_checkpoint(write_checkpoint(tmp_path / "m", tensors)).tensors
    assert read_tensor(infos["empty"]).shape == (0, 7)
    assert read_tensor(infos["scalar"]).shape == () and read_tensor(infos["scalar"]).item() == 2.5


def test_what_is_read_is_the_readers_own(tmp_path):
    info = open_checkpoint(write_checkpoint(tmp_path / "m", random_tensors())).tensors["model.norm.weight"]
    first = read_tensor(info)
    first.zero_()
    assert read_tensor(info).abs().sum() > 0


def test_vanished_and_shrunk_files(tmp_path):
    info = open_checkpoint(write_checkpoint(tmp_path / "m", random_tensors())).tensors["model.norm.weight"]
    os.truncate(info.file, info.start + 10)
    assert "ends inside tensor 'model.norm.weight': it has become shorter" in refusal(read_bytes, info)
    assert "has become shorter" in refusal(content_hash, info)
    info.file.unlink()
    for call in (read_bytes, read_tensor, content_hash):
        assert "cannot be read" in refusal(call, info)


# --- content hashes -------------------------------------------------------------------------------------------------


def test_content_hash_is_of_dtype_shape_and_bytes(tmp_path):
    tensors = {
        "a": torch.zeros(4, 6),
        "same": torch.zeros(4, 6),
        "shape": torch.zeros(6, 4),
        "dtype": torch.zeros(4, 6, dtype=torch.int32),
        "value": torch.zeros(4, 6).index_fill(0, torch.tensor([3]), 1),
    }
    infos = open_checkpoint(write_checkpoint(tmp_path / "m", tensors)).tensors
    hashes = {name: content_hash(info) for name, info in infos.items()}
    assert hashes["a"] == hashes["same"]
    assert len(set(hashes.values())) == 4
    elsewhere = open_checkpoint(write_checkpoint(tmp_path / "n", {"b": tensors["value"]})).tensors["b"]
    assert content_hash(elsewhere) == hashes["value"]


def count_reads(monkeypatch) -> list:
    """Record every pass over a tensor's bytes."""
    passes = []
    original = fingerprint.iter_chunks
    monkeypatch.setattr(fingerprint, "iter_chunks", lambda info: passes.append(info.name) or original(info))
    return passes


def test_a_hash_is_remembered_until_the_file_changes(tmp_path, monkeypatch, later):
    directory = write_checkpoint(tmp_path / "m", {"w": torch.zeros(64)})
    info = open_checkpoint(directory).tensors["w"]
    passes = count_reads(monkeypatch)
    first = content_hash(info)
    assert content_hash(info) == first and passes == ["w"]
    write_checkpoint(directory, {"w": torch.ones(64)})
    assert content_hash(info) != first and passes == ["w", "w"]


def change_in_place(info, at: int = 0) -> None:
    """Change a byte of a tensor as an attack would: size, inode and modification time stay as they were."""
    stat = info.file.stat()
    with info.file.open("r+b") as file:
        file.seek(info.start + at)
        byte = file.read(1)
        file.seek(info.start + at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(info.file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = info.file.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (stat.st_size, stat.st_mtime_ns, stat.st_ino)


def test_a_change_in_place_under_the_same_date_is_seen(tmp_path, later):
    directory = write_checkpoint(tmp_path / "m", {"w": torch.zeros(64 * 1024)})
    checkpoint = open_checkpoint(directory)
    info = checkpoint.tensors["w"]
    first = content_hash(info)
    assert is_hashed(info)
    change_in_place(info, 7000)  # outside every sampled block: the time of the last change tells
    assert not is_hashed(info) and content_hash(info) != first
    assert open_checkpoint(directory).fingerprint != checkpoint.fingerprint


@pytest.mark.parametrize("at", [0, 128 * 1024, 256 * 1024 - 1])
def test_a_change_that_leaves_no_date_at_all_is_seen_in_the_sample(tmp_path, monkeypatch, later, at):
    """As on a file system that keeps no time of the last change."""
    info = open_checkpoint(write_checkpoint(tmp_path / "m", {"w": torch.zeros(64 * 1024)})).tensors["w"]
    stamp = fingerprint.file_stamp(info.file.stat())
    monkeypatch.setattr(fingerprint, "file_stamp", lambda stat: stamp)
    first = content_hash(info)
    assert known_hashes([info]) == [first]
    change_in_place(info, at)
    assert known_hashes([info]) == [None] and content_hash(info) != first


def test_of_many_tensors_only_known_ones_are_sampled(tmp_path, monkeypatch, later):
    monkeypatch.setattr(fingerprint, "_MANY", 4)
    tensors = {f"w{number}": torch.full((64,), float(number)) for number in range(6)}
    infos = list(open_checkpoint(write_checkpoint(tmp_path / "m", tensors)).tensors.values())
    sampled, sample = [], fingerprint.read_samples
    monkeypatch.setattr(fingerprint, "read_samples", lambda some: sampled.append(len(some)) or sample(some))
    assert known_hashes(infos) == [None] * 6 and sampled == [0]
    infos[0].file.write_bytes(infos[0].file.read_bytes()[:-100])  # cut short since: said when a tensor is read
    assert known_hashes(infos) == [None] * 6


@pytest.mark.parametrize("keeps_times", [True, False])
def test_hashes_of_many_tensors_are_remembered_in_one_row(tmp_path, monkeypatch, later, keeps_times):
    monkeypatch.setattr(fingerprint, "_MANY", 4)
    tensors = {f"w{number}": torch.full((64,), float(number)) for number in range(6)}
    infos = list(open_checkpoint(write_checkpoint(tmp_path / "m", tensors)).tensors.values())
    if not keeps_times:
        stamp = fingerprint.file_stamp(infos[0].file.stat())
        monkeypatch.setattr(fingerprint, "file_stamp", lambda stat: stamp)
    hashes = [content_hash(info) for info in infos]
    read, each = [], fingerprint._recall_each
    monkeypatch.setattr(fingerprint, "_recall_each", lambda some: read.append(len(some)) or each(some))
    assert known_hashes(infos) == hashes and read == [6]
    assert known_hashes(infos) == hashes and read == [6]
    assert known_hashes(infos[::-1]) == hashes[::-1] and read == [6, 6]  # asked for otherwise
    assert known_hashes(infos[:5]) == hashes[:5] and read == [6, 6, 5]
    assert known_hashes(infos[:5]) == hashes[:5] and read == [6, 6, 5]
    others = [replace(info, shape=(8, 8)) for info in infos[:5]]
    assert known_hashes(others) == [None] * 5  # the same bytes, and another content
    change_in_place(infos[2], 5)
    left = [None] * 5 if keeps_times else [*hashes[:2], None, *hashes[3:5]]
    assert known_hashes(infos[:5]) == left


def test_a_folder_whose_name_is_no_text_is_hashed(tmp_path, later):
    name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    try:
        name.mkdir()
    except OSError:
        pytest.skip("this file system takes text only")
    info = open_checkpoint(write_checkpoint(name / "m", {"w": torch.zeros(64)})).tensors["w"]
    found = content_hash(info)
    assert known_hashes([info]) == [found]


def test_a_locked_database_costs_milliseconds_and_one_word(tmp_path, cache, later, caplog):
    tensors = {f"w{number}": torch.zeros(64) for number in range(20)}
    infos = list(open_checkpoint(write_checkpoint(tmp_path / "m", tensors)).tensors.values())
    expected = [content_hash(info) for info in infos]
    (database,) = cache.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        assert [content_hash(info) for info in infos] == expected
        assert time.monotonic() - started < 1.0  # it waited five seconds for each
    assert [record.getMessage() for record in caplog.records if "locked" in record.getMessage()] == [
        f"{database} is locked by another process: contents are hashed again until it is free"
    ]


def test_a_damaged_database_is_set_aside(tmp_path, cache, later):
    info = open_checkpoint(write_checkpoint(tmp_path / "m", {"w": torch.zeros(64)})).tensors["w"]
    expected = content_hash(info)
    (database,) = cache.glob("*.sqlite")
    damaged = database.read_bytes()[:100] + b"no database at all " * 500
    database.write_bytes(damaged)
    assert content_hash(info) == expected and is_hashed(info)
    assert (cache / f"damaged-{database.name}").read_bytes() == damaged
    with contextlib.closing(sqlite3.connect(database)) as foreign, foreign:  # of another version of dgviz
        foreign.execute("DROP TABLE hashes")
        foreign.execute("CREATE TABLE hashes (path TEXT)")
    assert content_hash(info) == expected and is_hashed(info)


def test_a_file_written_just_now_is_hashed_again(tmp_path, monkeypatch):
    """Two changes within one tick of the file system's clock must not be taken for one."""
    info = open_checkpoint(write_checkpoint(tmp_path / "m", {"w": torch.zeros(64)})).tensors["w"]
    passes = count_reads(monkeypatch)
    content_hash(info)
    content_hash(info)
    assert passes == ["w", "w"]


def test_a_file_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    info = open_checkpoint(write_checkpoint(tmp_path / "m", {"w": torch.zeros(64)})).tensors["w"]
    original = fingerprint.iter_chunks

    def touching(info):
        yield from original(info)
        os.utime(info.file, ns=(0, 0))

    monkeypatch.setattr(fingerprint, "iter_chunks", touching)
    assert "changed while tensor 'w' was read" in refusal(content_hash, info)


@pytest.mark.parametrize("damage", ["garbage", "directory", "not writable"])
def test_a_broken_cache_is_never_fatal(tmp_path, cache, monkeypatch, later, damage):
    info = open_checkpoint(write_checkpoint(tmp_path / "m", {"w": torch.zeros(64)})).tensors["w"]
    expected = content_hash(info)
    (database,) = cache.glob("*.sqlite")
    if damage == "garbage":
        database.write_bytes(b"no database at all " * 500)
    elif damage == "directory":
        database.unlink()
        database.mkdir()
    else:
        monkeypatch.setenv("DGVIZ_CACHE_DIR", str(info.file / "below a file"))
    passes = count_reads(monkeypatch)
    assert content_hash(info) == expected and content_hash(info) == expected
    assert len(passes) == (1 if damage == "garbage" else 2)  # garbage is replaced, the others cannot be


@pytest.mark.slow
def test_many_processes_share_one_cache(tmp_path, cache):
    base, _ = write_pair(tmp_path / "pair")
    code = (
        "import sys; from dgviz.checkpoint import content_hash, open_checkpoint\n"
        "import time; now = time.time_ns; time.time_ns = lambda: now() + 60 * 10**9\n"
        "tensors = open_checkpoint(sys.argv[1]).tensors\n"
        "print(*(content_hash(info) for _ in range(5) for info in tensors.values()))\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(base)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = {process.communicate(timeout=300)[0] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    expected = [content_hash(info) for info in open_checkpoint(base).tensors.values()] * 5
    assert outputs == {" ".join(expected) + "\n"}
