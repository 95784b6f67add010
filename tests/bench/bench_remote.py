"""What is read of a pair the size of Llama 3.1 70B that lies on a web server: to inspect it, and of one weight.

The files have the real names, shapes and sizes, and holes instead of numbers, but for the one weight that is read:
they take no room. The server is on this machine, so the times are those of dgviz and not of a line.
"""

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

import torch

from dgviz.checkpoint import open_checkpoint
from dgviz.cli import main
from dgviz.words import size
from tests.bench.bench_study import MODELS, shapes, write_holes
from tests.checkpoint.places import WebServer

HIDDEN, KV = 8192, 1024
NAME = "model.layers.40.self_attn.k_proj.weight"


def fill(folder: Path, values: torch.Tensor) -> None:
    """Give one weight its numbers."""
    info = open_checkpoint(folder).tensors[NAME]
    with info.file.open("r+b") as stream:
        stream.seek(info.start)
        stream.write(values.view(torch.uint8).numpy().tobytes())


def run() -> None:
    """Print what each command read, of how much."""
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"DGVIZ_CACHE_DIR": f"{name}/cache", "HF_HUB_OFFLINE": "0"}
        torch.manual_seed(0)
        base = torch.randn(KV, HIDDEN).mul_(0.02)
        tuned = base + 0.001 * torch.randn(KV, HIDDEN) + torch.randn(KV, 3) @ torch.randn(3, HIDDEN) / 500
        sides = {"base": base, "tuned": tuned}
        tensors = shapes(*MODELS["70B"])
        for side, own in sides.items():
            write_holes(Path(name, "www", side), tensors)
            fill(Path(name, "www", side), own.to(torch.bfloat16))
        files = list(Path(name, "www").rglob("*.safetensors"))
        total = sum(file.stat().st_size for file in files)
        server = WebServer(Path(name, "www"))
        pair = [f"{server.address}/{side}" for side in sides]
        print(f"a pair of {size(total)}, {2 * len(tensors)} tensors, {len(files)} files\n")
        print("| command | bytes read | of the pair | requests | s |\n|---|---|---|---|---|")
        for words in (["inspect", *pair], ["inspect", *pair], ["spectrum", *pair, NAME], ["spectrum", *pair, NAME]):
            read, asked, started = server.total, len(server.requests), time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                assert main(words) == 0
            seconds, read = time.perf_counter() - started, server.total - read
            figures = f"{size(read)} | 1/{total // max(read, 1):,} | {len(server.requests) - asked} | {seconds:.1f}"
            print(f"| {words[0]}{' of one weight' if len(words) > 3 else ''} | {figures} |", flush=True)
        print(f"\nthe weight itself is {size(2 * 2 * KV * HIDDEN)} on both sides")
        server.close()


if __name__ == "__main__":
    run()
