"""Commands on a pair that lies on another machine: the same results as here, and what was interrupted is finished."""

import json

import pytest
import torch

from dgviz.cli import main
from tests.checkpoint.places import WebServer
from tests.checkpoints import planted_update, write_checkpoint


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server with a pair of two shards."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # for processes of a scan
    monkeypatch.setattr("dgviz.checkpoint.remote.file.WAITS", (0.0, 0.0))
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = {f"model.layers.{layer}.self_attn.q_proj.weight": torch.randn(256, 256) for layer in range(6)}
    for side, tensors in (("base", base), ("tuned", planted_update(base))):
        write_checkpoint(tmp_path / "www" / side, tensors, {"vocab_size": 96}, 2)
    server = WebServer(tmp_path / "www")
    yield server
    server.close()


def scan(capsys, *pair) -> tuple[int, dict]:
    status = main(["scan", *map(str, pair), "--workers", "1", "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.soak
def test_a_scan_is_interrupted_and_finished(server, capsys):
    pair = f"{server.address}/base", f"{server.address}/tuned"
    server.allowance = 1_200_000
    status, report = scan(capsys, *pair)
    done = report["computed"]
    assert status == 1 and done > 0 and len(report["errors"]) == 6 - done
    assert all("is refused by its server (403)" in error for error in report["errors"].values())
    server.allowance = None
    status, report = scan(capsys, *pair)
    assert status == 0 and report["stored"] == done and report["computed"] == 6 - done


def test_an_export_is_interrupted_and_finished(server, tmp_path, capsys):
    pair = [f"{server.address}/{side}" for side in ("base", "tuned")]
    assert main(["inspect", *pair]) == 0
    looked, nbytes = server.total, sum(file.stat().st_size for file in server.folder.rglob("*.safetensors"))
    assert f"base  {pair[0]}: 6 tensors" in capsys.readouterr().out
    out, here = tmp_path / "out", tmp_path / "here"
    server.allowance = 1_200_000
    assert main(["repair", *pair, str(out)]) == 2
    assert "is refused by its server (403)" in capsys.readouterr().err and not (out / "config.json").exists()
    server.allowance = None
    assert main(["repair", *pair, str(out)]) == 0
    assert server.total <= 2 * nbytes + 3 * looked
    # Nothing of the weights stays on the disk, and what is written is what it would be from here.
    mirrors = sum(file.stat().st_size for file in (tmp_path / "cache" / "remote").rglob("*") if file.is_file())
    assert mirrors < nbytes / 100
    assert main(["repair", *(str(server.folder / side) for side in ("base", "tuned")), str(here)]) == 0
    written = [file.name for file in here.iterdir() if not file.name.startswith("dgviz")]
    assert len(written) > 3 and all((out / name).read_bytes() == (here / name).read_bytes() for name in written)


def test_what_loads_a_whole_model_says_so(server, capsys):
    assert main(["evaluate", f"{server.address}/base", "--tasks", "plain", "--backend", "demo"]) == 2
    assert f"{server.address}/base cannot be scored where it lies" in capsys.readouterr().err
