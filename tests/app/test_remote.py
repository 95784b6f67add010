"""Pairs on other machines in the dashboard: opened when asked to, confined as folders are, never asked by a link."""

import pytest

from dgviz.app import roots
from dgviz.app.direction import lens_or_reason
from dgviz.app.pair import checkpoint_path
from dgviz.checkpoint import open_pair
from dgviz.command import Command
from dgviz.errors import AccessError
from dgviz.spectra.weight import find_weight
from tests.app.pages import open_at, texts
from tests.checkpoint.places import WebServer
from tests.checkpoints import write_pair


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    write_pair(tmp_path / "www")
    server = WebServer(tmp_path / "www")
    yield server
    server.close()


def test_a_pair_is_opened_by_its_addresses_and_a_link_asks_nobody(server):
    pair = {"base": f"{server.address}/base", "tuned": f"{server.address}/tuned"}
    asked = open_at("open", opened=False, **pair)
    assert not server.requests and "was not opened here before" in texts(asked)
    app = open_at("open", **pair)
    assert server.requests and "6 of 11 tensors will be repaired" in texts(app)
    requests = len(server.requests)
    app.run()
    assert len(server.requests) == requests  # what is known is not asked for again
    assert not app.exception


def test_a_vocabulary_far_away_is_read_by_a_command_only(server):
    pair = open_pair(*(checkpoint_path(f"{server.address}/{side}") for side in ("base", "tuned")))
    weight = find_weight(pair, "model.layers.2.mlp.up.weight")
    requests = len(server.requests)
    lens, why = lens_or_reason("far", weight.name, 3, pair, weight)
    assert lens is None and len(server.requests) == requests
    command = why.partition("for this: ")[2].removesuffix(" does.")
    assert command == f"python -m dgviz spectrum {server.address}/base {server.address}/tuned {weight.name} --lens 3"
    Command.parse(command)


def test_commands_are_shown_with_whole_addresses(server):
    base, tuned = (checkpoint_path(f"{server.address}/{side}") for side in ("base", "tuned"))
    command = Command("scan", base=base, tuned=tuned)
    assert str(command) == f"python -m dgviz scan {server.address}/base {server.address}/tuned"
    assert Command.parse(str(command)) == command
    several = Command("family", base=base, tuned=[tuned, base])
    assert f"{server.address}/tuned {server.address}/base" in str(several)


def test_a_server_for_others_opens_the_addresses_it_is_told(monkeypatch):
    monkeypatch.setattr(roots.st, "get_option", lambda name: {"server.address": "0.0.0.0"}[name])
    with pytest.raises(AccessError, match="names no addresses to open; set DGVIZ_REMOTE_ROOTS to them"):
        checkpoint_path("s3://bucket/base")
    monkeypatch.setenv("DGVIZ_REMOTE_ROOTS", "s3://bucket/models hf://org/name")
    for inside in ("s3://bucket/models/base", "hf://org/name@main", "hf://org/name"):
        checkpoint_path(inside)
    for outside in ("s3://bucket/modelsx", "s3://bucket", "hf://org/names", "http://169.254.169.254/x"):
        with pytest.raises(AccessError, match="this server may open only s3://bucket/models, hf://org/name"):
            checkpoint_path(outside)
