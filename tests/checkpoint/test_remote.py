"""Checkpoints at addresses: what is read of them, what is refused, and that nothing else is known of them."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open

from dgviz.checkpoint import content_hash, inspect_pair, known_hashes, open_checkpoint, read_bytes, read_tensor
from dgviz.checkpoint.remote.address import parse_address
from dgviz.checkpoint.remote.mirror import find_mirror
from dgviz.checkpoint.remote.outline import outline
from dgviz.cli import main
from dgviz.errors import AccessError, CheckpointError
from dgviz.export.lineage import hub_name
from tests.checkpoint.places import COMMIT, HubServer, WebServer, s3_server
from tests.checkpoints import write_checkpoint, write_pair


@pytest.fixture(autouse=True)
def online(monkeypatch, tmp_path):
    """Let other machines be asked, without long waits, and let nothing be known from elsewhere."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("dgviz.checkpoint.remote.file.WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def server(tmp_path):
    """A web server with a pair of several shards each."""
    write_pair(tmp_path / "www", shards=3)
    server = WebServer(tmp_path / "www")
    yield server
    server.close()


def local(server, side="base"):
    return server.folder / side


def refused(call, *args, error=CheckpointError) -> str:
    with pytest.raises(error) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_an_address(tmp_path, monkeypatch):
    assert str(parse_address("s3://bucket/models/base/")) == "s3://bucket/models/base"
    # A path that was made of an address has lost a slash.
    assert parse_address(str(Path("https://host/x/model.safetensors"))) == parse_address(
        "https://host/x/model.safetensors"
    )
    assert parse_address("https://host/x/model.safetensors").file == "model.safetensors"
    for text in ("org/name", "/a/b", "file:///a", "ftp://host/x", "c:/x", "https://"):
        assert parse_address(text) is None
    for text in ("s3://b/../c", "https://host/%2e%2e/x", "https://h//x", "s3://b/a b", "s3://b/\\c"):
        assert "is no plain address" in refused(parse_address, text)
    for text in ("https://me:secret@host/x", "https://host/x?signature=secret", "https://host/x#secret"):
        assert "secret" not in refused(parse_address, text).replace("its secret", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "b").mkdir(parents=True)
    assert parse_address("s3:/b") is None  # a path that is there


def test_a_pair_is_the_same_from_afar(server):
    here = inspect_pair(local(server), local(server, "tuned"))
    afar = inspect_pair(f"{server.address}/base", f"{server.address}/tuned")
    assert [(row.name, row.action, row.reason) for row in afar.tensors] == [
        (row.name, row.action, row.reason) for row in here.tensors
    ]
    for own, other in zip(afar.tensors, here.tensors, strict=True):
        assert read_bytes(own.tuned) == read_bytes(other.tuned)
        assert (read_tensor(own.base) == read_tensor(other.base)).all()
    assert afar.base.config == here.base.config and afar.base.path.name == "base"


def test_a_weight_file_is_named_and_a_shard_stands_for_its_index(server):
    shard = next(local(server).glob("*00002-of*.safetensors"))
    opened = open_checkpoint(f"{server.address}/base/{shard.name}")
    assert len(opened.shards) == 3 and opened.tensors.keys() == open_checkpoint(local(server)).tensors.keys()


def test_no_loader_takes_a_mirror_for_whole(server):
    opened = open_checkpoint(f"{server.address}/base")
    for shard in opened.shards:
        with pytest.raises(SafetensorError, match="incomplete"):
            safe_open(opened.path / shard, framework="numpy")


def test_an_outline_has_every_name_and_shape_and_takes_no_room(server):
    opened = open_checkpoint(f"{server.address}/base")
    asked = len(server.requests)
    with outline(opened.path) as folder:
        for shard in opened.shards:
            with safe_open(folder / shard, framework="numpy") as file:
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            assert shapes == {i.name: i.shape for i in opened.tensors.values() if i.file.name == shard}
        assert (folder / "model.safetensors.index.json").is_file()
    assert not folder.exists() and len(server.requests) == asked
    with outline(local(server)) as folder:
        assert folder == local(server)


def test_a_header_beyond_the_first_bytes(server):
    many = {f"layers.{number}.{'long' * 20}.weight": torch.ones(2, 2) for number in range(400)}
    write_checkpoint(server.folder / "many", many)
    assert open_checkpoint(f"{server.address}/many").tensors.keys() == many.keys()
    assert (server.folder / "many" / "model.safetensors").stat().st_size > 64 * 2**10


# --- bytes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(server):
    """A pair of 11 MB a side: large beside what is looked at of it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = {f"model.layers.{layer}.self_attn.q_proj.weight": torch.randn(640, 420) for layer in range(10)}
        tuned = {name: tensor + 0.01 * torch.randn(640, 420) for name, tensor in base.items()}
    pair = [write_checkpoint(server.folder / "large" / s, t) for s, t in (("base", base), ("tuned", tuned))]
    nbytes = sum((side / "model.safetensors").stat().st_size for side in pair)
    return [f"{server.address}/large/{side.name}" for side in pair], nbytes


def test_inspecting_reads_headers_and_a_sample(server, large, capsys):
    addresses, nbytes = large
    assert main(["inspect", *addresses, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tensors = len(found["tensors"])
    assert server.total <= 2 * 80 * 2**10 + 2 * tensors * 8 * 2**10 < nbytes / 20
    before = server.total
    assert main(["inspect", *addresses]) == 0
    assert server.total - before <= 2 * tensors * 8 * 2**10 + 100  # headers are known


def test_one_weight_is_read_alone(server, large, capsys):
    addresses, nbytes = large
    assert main(["inspect", *addresses]) == 0
    looked = server.total
    name = "model.layers.1.self_attn.q_proj.weight"
    weight = open_checkpoint(addresses[0]).tensors[name]
    assert main(["spectrum", *addresses, name]) == 0
    assert server.total - looked <= 2 * weight.nbytes + looked < nbytes / 4
    read = server.total
    assert main(["spectrum", *addresses, name]) == 0  # it is stored, and nothing of it is read again
    assert server.total - read < looked + 1000
    capsys.readouterr()


def test_a_tensor_of_many_parts_is_read_once(server, monkeypatch):
    monkeypatch.setattr("dgviz.checkpoint.remote.transfer.PART_BYTES", 1000)
    opened, here = open_checkpoint(f"{server.address}/base"), open_checkpoint(local(server))
    name = max(opened.tensors, key=lambda name: opened.tensors[name].nbytes)
    before = server.total
    assert read_bytes(opened.tensors[name]) == read_bytes(here.tensors[name])
    assert server.total - before == opened.tensors[name].nbytes > 5000


def test_contents_are_known_unread_and_by_their_place(server):
    address = f"{server.address}/base"
    opened = open_checkpoint(address)
    before = len(server.requests)
    hashes = {name: content_hash(info) for name, info in opened.tensors.items()}
    assert known_hashes(list(opened.tensors.values())) == list(hashes.values())
    assert len(server.requests) == before and len(set(hashes.values())) == len(hashes)
    again = open_checkpoint(address)
    assert {name: content_hash(info) for name, info in again.tensors.items()} == hashes
    assert again.fingerprint == opened.fingerprint


def test_mirrors_are_counted_and_forgotten(server, capsys):
    opened = open_checkpoint(f"{server.address}/base")
    assert main(["cache", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["remote"] > 1000
    assert main(["cache", "clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["remote"] == 0
    assert not opened.path.exists() and open_checkpoint(f"{server.address}/base").path.exists()


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [["busy"], ["drop"], ["busy", "drop"]])
def test_what_passes_is_tried_again(server, faults):
    opened, here = open_checkpoint(f"{server.address}/base"), open_checkpoint(local(server))
    name = max(opened.tensors, key=lambda name: opened.tensors[name].nbytes)
    server.faults = list(faults)
    assert read_bytes(opened.tensors[name]) == read_bytes(here.tensors[name])
    assert not server.faults


def test_what_does_not_pass_is_said(server):
    opened = open_checkpoint(f"{server.address}/base")
    tensor = next(iter(opened.tensors.values()))
    server.faults = ["busy"] * 3
    assert "cannot be read (the server answers 503), 3 times in a row" in refused(read_bytes, tensor)
    server.faults = ["drop"] * 3
    assert "times in a row: try again later" in refused(read_bytes, tensor)
    server.close()
    assert "times in a row: try again later" in refused(read_bytes, tensor)


def test_contents_that_change_are_refused_until_it_is_opened_again(server):
    address = f"{server.address}/base"
    opened = open_checkpoint(address)
    name = max(opened.tensors, key=lambda name: opened.tensors[name].nbytes)
    shard = local(server) / opened.tensors[name].file.name
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert "has other contents than when it was opened: open the checkpoint again" in refused(
        read_bytes, opened.tensors[name]
    )
    again = open_checkpoint(address)
    assert again.fingerprint != opened.fingerprint
    assert read_bytes(again.tensors[name]) == read_bytes(open_checkpoint(local(server)).tensors[name])
    assert "other contents" in refused(read_bytes, opened.tensors[name])  # what was opened stays what it was
    shard.unlink()
    unread = next(info for info in again.tensors.values() if info.file.name == shard.name and info.name != name)
    assert "other contents" in refused(read_bytes, unread)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"ranges": False}, "its server sends whole files only, no ranges of bytes: download the files"),
        ({"etags": False}, "comes without an ETag and a date of its last change"),
        ({"status": 401}, "is refused by its server (401): log in by a token in the environment"),
        ({"status": 404}, "has no weights under a usual name"),
        ({"status": 500}, "cannot be read (the server answers 500), 3 times in a row"),
    ],
)
def test_a_server_that_does_not_do(server, fault, said):
    for name, value in fault.items():
        setattr(server, name, value)
    assert said in refused(open_checkpoint, f"{server.address}/base")


def test_shards_that_are_missing_are_named(server):
    next(local(server).glob("*00002-of*")).unlink()
    assert "names shards that are not there: 'model-00002-of-00003" in refused(
        open_checkpoint, f"{server.address}/base"
    )


def test_damage_is_said_as_of_a_file_here(server):
    shard = next(local(server).glob("*00001-of*"))
    content = shard.read_bytes()
    for damaged in (content[:-5], b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 2000, b"abc"):
        shard.write_bytes(damaged)
        here = refused(open_checkpoint, local(server))
        afar = refused(open_checkpoint, f"{server.address}/base")
        assert afar.rpartition(shard.name)[2] == here.rpartition(shard.name)[2]


def test_offline_what_is_known_opens_and_nothing_is_read(server, monkeypatch):
    address = f"{server.address}/base"
    opened = open_checkpoint(address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(server.requests)
    again = open_checkpoint(address)
    assert again.fingerprint == opened.fingerprint
    assert "cannot be read offline (HF_HUB_OFFLINE is set)" in refused(read_bytes, next(iter(again.tensors.values())))
    assert "cannot be read offline" in refused(open_checkpoint, f"{server.address}/tuned")
    assert len(server.requests) == asked


# --- who may be asked, and with what --------------------------------------------------------------------------------


def test_a_token_goes_to_its_host_only(server, monkeypatch, tmp_path):
    other = WebServer(server.folder)
    monkeypatch.setenv("DGVIZ_HTTP_TOKENS", f"{server.host}=secret, elsewhere.example=none")
    server.redirect = other.address
    opened = open_checkpoint(f"{server.address}/base")
    read_bytes(next(iter(opened.tensors.values())))
    assert {token for *_, token in server.requests} == {"Bearer secret"}
    assert other.requests and {token for *_, token in other.requests} == {None}
    open_checkpoint(f"{other.address}/tuned")
    assert {token for *_, token in other.requests} == {None}
    written = [file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert not any(b"secret" in content for content in written)
    other.close()


def test_roots_keep_addresses_out_unless_they_are_named(server, monkeypatch, tmp_path):
    base, tuned = f"{server.address}/base", f"{server.address}/tuned"
    known = open_checkpoint(base)
    tensor = next(iter(known.tensors.values()))
    monkeypatch.setenv("DGVIZ_ROOTS", str(tmp_path / "www"))
    asked = len(server.requests)
    assert "this server may open none" in refused(open_checkpoint, base, error=AccessError)
    refused(read_bytes, tensor, error=AccessError)  # what was opened before as well
    refused(open_checkpoint, known.path, error=AccessError)
    monkeypatch.setenv("DGVIZ_REMOTE_ROOTS", f"s3://bucket {tuned}")
    assert f"may open only s3://bucket, {tuned}" in refused(open_checkpoint, base, error=AccessError)
    refused(open_checkpoint, f"{tuned}-other", error=AccessError)
    assert len(server.requests) == asked
    opened = open_checkpoint(tuned)
    assert read_bytes(next(iter(opened.tensors.values())))
    monkeypatch.delenv("DGVIZ_ROOTS")
    refused(open_checkpoint, base, error=AccessError)  # what is named alone confines too


def test_a_record_counts_in_the_cache_alone(server, tmp_path):
    """A downloaded folder that claims to be a mirror must not make dgviz ask anybody anything."""
    opened = open_checkpoint(f"{server.address}/base")
    shutil.copytree(opened.path.parent, tmp_path / "copy")
    asked = len(server.requests)
    assert "is truncated" in refused(open_checkpoint, tmp_path / "copy" / "base")
    assert len(server.requests) == asked


def test_what_was_opened_last_is_found_without_asking(server):
    address = parse_address(f"{server.address}/base")
    assert find_mirror(address) is None
    opened = open_checkpoint(str(address))
    asked = len(server.requests)
    assert find_mirror(address) == opened.path and len(server.requests) == asked


# --- the Hugging Face Hub -------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with org/base and org/tuned, whose files another host sends."""
    write_pair(tmp_path / "hub" / "org", shards=2)
    hub = HubServer(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    hub.close()


def test_a_model_of_the_hub_is_read_where_it_lies(hub):
    pair = inspect_pair("hf://org/base", "hf://org/tuned@main")
    here = inspect_pair(hub.folder / "org" / "base", hub.folder / "org" / "tuned")
    assert pair.counts() == here.counts()
    for own, other in zip(pair.tensors, here.tensors, strict=True):
        assert read_bytes(own.tuned) == read_bytes(other.tuned)
    assert pair.base.path.name == COMMIT and hub_name(pair.base) == "org/base"
    # Of a model the hub is told who asks, and the host that it sends to is not.
    assert {token for path, _, token in hub.requests if "org/" in path} == {"Bearer hf_secret"}
    assert hub.store.requests and {token for *_, token in hub.store.requests} == {None}


def test_digests_tell_contents_wherever_they_lie(hub):
    shutil.copytree(hub.folder / "org" / "base", hub.folder / "org" / "copy")
    first, second = open_checkpoint("hf://org/base"), open_checkpoint(f"hf://org/copy@{COMMIT}")
    assert {name: content_hash(info) for name, info in first.tensors.items()} == {
        name: content_hash(info) for name, info in second.tensors.items()
    }


def test_a_small_file_that_is_not_what_the_hub_says_is_refused(hub):
    hub.lies = True
    assert "came with the git hash" in refused(open_checkpoint, "hf://org/base")
    assert find_mirror(parse_address("hf://org/base")) is None


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://org/none", "there is no model 'org/none' on the Hugging Face Hub, or it is private"),
        ("hf://org/gated", "org/gated is gated: accept its terms"),
        ("hf://org/base@v9", "org/base has no revision 'v9': give a branch, a tag or a commit"),
        ("hf://org", "is no model of the Hugging Face Hub: give hf://org/name"),
        ("hf://org/pipeline", "is a diffusers pipeline of several models, each a checkpoint of its own"),
    ],
)
def test_the_hub_refuses(hub, address, said):
    assert said in refused(open_checkpoint, address)


def test_a_component_of_a_pipeline(hub):
    unet = open_checkpoint("hf://org/pipeline@main/unet")
    assert unet.path.name == "unet" and unet.tensors


def test_the_hub_offline(hub, monkeypatch):
    known = open_checkpoint("hf://org/base@main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert open_checkpoint("hf://org/base@main").fingerprint == known.fingerprint
    assert "cannot be read offline" in refused(open_checkpoint, "hf://org/tuned")


# --- an object store ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket():
    """A server of S3 with an empty bucket."""
    with s3_server() as client:
        client.create_bucket(Bucket="models")
        yield client


def upload(client, folder, prefix):
    for file in folder.iterdir():
        client.upload_file(str(file), "models", f"{prefix}/{file.name}")


def test_a_pair_in_a_bucket(bucket, tmp_path):
    for side in write_pair(tmp_path, shards=2):
        upload(bucket, side, f"pair/{side.name}")
    pair = inspect_pair("s3://models/pair/base", "s3://models/pair/tuned/")
    here = inspect_pair(tmp_path / "base", tmp_path / "tuned")
    assert pair.counts() == here.counts()
    for own, other in zip(pair.tensors, here.tensors, strict=True):
        assert read_bytes(own.tuned) == read_bytes(other.tuned)
    again = open_checkpoint("s3://models/pair/base")
    assert again.fingerprint == pair.base.fingerprint and again.path == pair.base.path
    name = max(again.tensors, key=lambda name: again.tensors[name].nbytes)
    shard = tmp_path / "base" / again.tensors[name].file.name
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    bucket.put_object(Bucket="models", Key=f"pair/base/{shard.name}", Body=bytes(content))
    unread = next(info for info in pair.base.tensors.values() if info.file.name == shard.name)
    assert "other contents" in refused(read_bytes, unread.slice(0) if len(unread.shape) > 1 else unread)
    assert open_checkpoint("s3://models/pair/base").fingerprint != pair.base.fingerprint


def test_a_bucket_that_is_not_there(bucket, monkeypatch):
    assert "there is nothing at s3://none/x" in refused(open_checkpoint, "s3://none/x")
    assert "there is nothing at s3://models/none" in refused(open_checkpoint, "s3://models/none")


def test_a_store_whose_package_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    said = refused(open_checkpoint, "gs://models/pair/base")
    assert "needs gcsfs, which is not installed: run `python -m pip install 'dgviz[gs]'`" in said
