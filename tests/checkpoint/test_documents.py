"""Files of a checkpoint: links, sizes and JSON that other readers accept, and what is said of them here."""

import json
import os
import shutil

import pytest

from dgviz.checkpoint import open_checkpoint, open_pair
from dgviz.checkpoint.documents import MAX_CONFIG_BYTES
from dgviz.errors import CheckpointError
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoint.test_adapter import UP, factors, write_adapter
from tests.checkpoint.test_names import write_tokenizer
from tests.checkpoints import random_tensors, write_checkpoint, write_pair

INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"


def refusal(call, *args) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def model(tmp_path):
    return write_checkpoint(tmp_path / "m", random_tensors(), {"vocab_size": 96}, 2)


# --- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", INDEX, SHARD])
def test_a_link_out_of_the_directory_is_refused(tmp_path, model, name):
    outside = tmp_path / "elsewhere" / name
    outside.parent.mkdir()
    (model / name).rename(outside)
    (model / name).symlink_to(outside)
    message = refusal(open_checkpoint, model)
    assert message.startswith(f"{model / name} is a link to {outside}, outside its directory")
    assert "copy the file there, or give the directory it lies in" in message


def test_a_tokenizer_that_is_a_link_out_is_refused(tmp_path):
    base = write_checkpoint(tmp_path / "b", random_tensors(), {"vocab_size": 96})
    tensors = random_tensors(1)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].repeat(2, 1)
    tuned = write_checkpoint(tmp_path / "t", tensors, {"vocab_size": 192})
    (tmp_path / "secret").write_text("{}")
    write_tokenizer(base, ["a"])
    (tuned / "tokenizer.json").symlink_to(tmp_path / "secret")
    assert "tokenizer.json is a link to" in refusal(open_pair, base, tuned)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_of_links_is_refused(tmp_path, name):
    base = write_checkpoint(tmp_path / "b", random_tensors())
    adapter = write_adapter(tmp_path / "a", {UP: factors(64, 32)})
    (adapter / name).rename(tmp_path / name)
    (adapter / name).symlink_to(tmp_path / name)
    assert f"{name} is a link to" in refusal(open_pair, base, adapter)


def test_links_inside_the_directory_and_to_it_are_followed(tmp_path, model):
    (model / "weights").mkdir()
    (model / SHARD).rename(model / "weights" / SHARD)
    (model / SHARD).symlink_to(f"weights/{SHARD}")
    (tmp_path / "link").symlink_to(model)
    assert open_checkpoint(tmp_path / "link") == open_checkpoint(model)


def test_a_cache_whose_blobs_lead_elsewhere_is_refused(tmp_path, model):
    """Links to ``../../blobs`` are allowed, blobs that are a link themselves are not."""
    snapshot = tmp_path / "models--o--n" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    shutil.copytree(model, tmp_path / "real")
    (tmp_path / "models--o--n" / "blobs").symlink_to(tmp_path / "real")
    for file in model.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert f"config.json is a link to {tmp_path / 'real' / 'config.json'}, outside" in refusal(
        open_checkpoint, snapshot
    )
    (tmp_path / "models--o--n" / "blobs").unlink()
    shutil.copytree(model, tmp_path / "models--o--n" / "blobs")
    assert open_checkpoint(snapshot).tensors.keys() == random_tensors().keys()
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../other/blobs/config.json")  # of another repository
    assert "config.json is a link to" in refusal(open_checkpoint, snapshot)


def test_a_link_to_nothing_is_not_taken_for_a_missing_file(model):
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("gone")
    assert (
        refusal(open_checkpoint, model) == f"{model / 'config.json'} is a link to a file that is gone: fetch it again"
    )


def test_an_export_copies_no_file_from_elsewhere(tmp_path):
    from dgviz.export import plan_export
    from dgviz.repair.plan import RepairPlan

    base, tuned = write_pair(tmp_path)
    (tmp_path / "secret").write_text("x")
    (tuned / "tokenizer_config.json").symlink_to(tmp_path / "secret")
    message = refusal(plan_export, open_pair(base, tuned), RepairPlan(), tmp_path / "out")
    assert message.startswith(f"{tuned / 'tokenizer_config.json'} is a link to {tmp_path / 'secret'}, outside")


# --- what is no document --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(model):
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    assert "config.json cannot be read: it is a pipe and no regular file" in refusal(open_checkpoint, model)


def test_sizes_have_caps(model):
    with (model / "config.json").open("r+b") as stream:
        stream.truncate(MAX_CONFIG_BYTES + 1)  # sparse: nothing is written
    message = refusal(open_checkpoint, model)
    assert message.endswith(
        f"has {MAX_CONFIG_BYTES + 1} bytes, above the cap of {MAX_CONFIG_BYTES}: it is not a config"
    )
    (model / "config.json").unlink()
    with (model / INDEX).open("r+b") as stream:
        stream.truncate(256_000_001)
    assert refusal(open_checkpoint, model).endswith("above the cap of 256000000: it is not an index")


def test_a_key_that_is_there_twice_is_refused(model):
    (model / "config.json").write_text('{"model_type": "llama", "model_type": "bert"}')
    assert "config.json is not valid JSON (key 'model_type' is there twice)" in refusal(open_checkpoint, model)
    (model / "config.json").write_text('{"a": {"b": 1, "b": 1}}')
    assert "key 'b' is there twice" in refusal(open_checkpoint, model)


def test_a_byte_order_mark_is_read_over_and_copied(tmp_path):
    paths = write_pair(tmp_path, config={"model_type": "synthetic", "vocab_size": 96})
    expected = open_checkpoint(paths[1]).config
    marked = b"\xef\xbb\xbf" + (paths[1] / "config.json").read_bytes()
    (paths[1] / "config.json").write_bytes(marked)
    assert open_checkpoint(paths[1]).config == expected
    list(iter_export(plan_export(open_pair(*paths), RepairPlan(), tmp_path / "out")))
    assert (tmp_path / "out" / "config.json").read_bytes() == marked


def test_infinity_in_a_config_is_read(model):
    """Not JSON, but transformers writes it into configs (Mamba's time_step_limit), and reads it."""
    (model / "config.json").write_text('{"time_step_limit": [0.0, Infinity]}')
    assert open_checkpoint(model).config["time_step_limit"] == [0.0, float("inf")]
    index = json.loads((model / INDEX).read_text())
    (model / INDEX).write_text(json.dumps(index | {"metadata": {"total_size": float("nan")}}))
    assert "NaN is not JSON" in refusal(open_checkpoint, model)
