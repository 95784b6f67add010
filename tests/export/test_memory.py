"""Memory that the operating system limits: a global trim of a deep model, and one tensor of three gigabytes."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dgviz.checkpoint import open_checkpoint
from tests.checkpoints import planted_update, write_checkpoint

ROOT = Path(__file__).parents[2]
MIB, GIB = 2**20, 2**30
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all private memory on Linux only")

# Everything is imported, then what is held beyond that is limited by the kernel.
LIMITED = """
import resource, sys, torch
torch.set_num_threads(1)
import dgviz.export.write, dgviz.analysis.methods
from dgviz.cli import main
from dgviz.checkpoint import open_pair
from dgviz.repair.update import TensorUpdate
torch.ones(512, 512) @ torch.ones(512, 512)
(data,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmData")]
limit = 1024 * int(data) + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if sys.argv[2] != "hold":
    sys.exit(main(sys.argv[2:]))
held = [key for item in open_pair(*sys.argv[3:]).repairable for key in TensorUpdate(item, "cpu").magnitudes()]
"""
BUDGET = 112 * MIB  # about a dozen blocks of 2^20 entries


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Twenty-four bfloat16 matrices, six to a file: the keys of all entries together take 192 MiB."""
    directory = tmp_path_factory.mktemp("deep")
    generator = torch.Generator().manual_seed(0)
    shape = 1024, 1024
    base = {f"layers.{i}.weight": torch.randn(shape, generator=generator).bfloat16() for i in range(24)}
    noise = 1e-2 * torch.randn(shape, generator=generator)
    tuned = {name: (tensor + noise.roll(i, 0)).bfloat16() for i, (name, tensor) in enumerate(base.items())}
    sides = {"base": base, "tuned": tuned}
    return [str(write_checkpoint(directory / side, tensors, shards=4)) for side, tensors in sides.items()]


def limited(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(BUDGET), *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@LINUX
def test_a_trim_of_the_whole_model_fits_where_its_keys_do_not(deep, tmp_path):
    run = limited("repair", *deep, str(tmp_path / "out"), "--method", "ties", "--device", "cpu")
    assert run.returncode == 0, run.stderr[-2000:]
    report = json.loads((tmp_path / "out" / "dgviz.json").read_text())
    assert sum(row["written"] == "repaired" for row in report["tensors"].values()) == 24


@LINUX
def test_the_limit_bites(deep):
    run = limited("hold", *deep)
    assert run.returncode and ("can't allocate memory" in run.stderr or "MemoryError" in run.stderr), run.stderr[
        -500:
    ]


LARGE = (2**20, 1536)


def write_large(directory):
    """Write a bfloat16 matrix of 3 GiB on both sides, base all zero and sparse on disk, and a small one beside it."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = LARGE
    size = 2 * rows * columns
    small = {"small.weight": torch.randn(96, 64, generator=generator).bfloat16()}
    header = json.dumps({"large.weight": {"dtype": "BF16", "shape": LARGE, "data_offsets": (0, size)}}).encode()
    right = torch.linalg.qr(torch.randn(columns, 3, generator=generator)).Q.T
    for side, tensors in (("base", small), ("tuned", planted_update(small))):
        write_checkpoint(directory / side, tensors, {"name": "synthetic"})
        (directory / side / "model.safetensors").rename(directory / side / "model-00001-of-00002.safetensors")
        names = {
            "small.weight": "model-00001-of-00002.safetensors",
            "large.weight": "model-00002-of-00002.safetensors",
        }
        index = {"metadata": {"total_size": size + 2 * 96 * 64}, "weight_map": names}
        (directory / side / "model.safetensors.index.json").write_text(json.dumps(index))
        with (directory / side / names["large.weight"]).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _ in range(0, rows, 2**14) if side == "tuned" else ():
                block = torch.randn(2**14, columns, generator=generator)
                block += torch.randn(2**14, 3, generator=generator) * torch.tensor([9.0, 6.0, 4.0]) @ right
                file.write((1e-3 * block).bfloat16().view(torch.uint8).numpy())
            file.truncate(8 + len(header) + size)
    return directory / "base", directory / "tuned"


def run_limited(command, limit, errors):
    """Run a command under a limit on its memory; return its seconds and peak anonymous bytes."""
    started, peak = time.perf_counter(), 0
    with errors.open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                peak = max(peak, 1024 * int(line.split()[1]))
        time.sleep(0.05)
    assert process.returncode == 0, errors.read_text()[-2000:]
    return time.perf_counter() - started, peak


@LINUX
@pytest.mark.soak
@pytest.mark.parametrize(
    ("options", "times", "written"),
    [(("--exclude", "^large"), 1, "tuned bytes"), ((), 4, "repaired")],
    ids=["kept", "repaired"],
)
def test_a_tensor_of_three_gigabytes(tmp_path, options, times, written):
    """Copied it takes its own size; repaired the update in float32, base and result. One GiB is for the libraries."""
    base, tuned = write_large(tmp_path)
    limit = int(times * 3 * GIB + GIB)
    command = [sys.executable, "-m", "dgviz", "repair", base, tuned, tmp_path / "out", "--device", "cpu", *options]
    seconds, peak = run_limited([str(word) for word in command], limit, tmp_path / "errors")
    print(f"{written}: {seconds:.0f} s, peak {peak / GIB:.2f} GiB under a limit of {limit / GIB:.1f} GiB")
    row = json.loads((tmp_path / "out" / "dgviz.json").read_text())["tensors"]["large.weight"]
    assert row["written"] == written and (times == 1 or row["matrices"][0]["rank"] == 3)
    assert open_checkpoint(tmp_path / "out").tensors["large.weight"].nbytes == 3 * GIB
