"""What `plan` foretells of pairs of several kinds, beside what their scan and repair took: processor seconds, bytes.

Processor time, because other processes share the machine; each command on one thread.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from tests.bench.bench_remote import NAME
from tests.checkpoints import write_checkpoint

PAIRS = {
    "wide": [(1024, 4096)] * 5 + [(1024, 1024)] * 6 + [(256, 1024)] * 8,
    "large": [(4096, 2048)] * 3 + [(2048, 2048)] * 2,
    "experts": [(192, 256)] * 120,
    "mixed": [(2048, 1024)] * 4 + [(512, 512)] * 20 + [(64, 1024)] * 20,
}


def write_sides(folder: Path, shapes: list[tuple[int, int]]) -> list[str]:
    """Write a bfloat16 pair with eight planted directions in every matrix."""
    base, tuned = {}, {}
    for number, (rows, cols) in enumerate(shapes):
        name = NAME.replace("40", str(number))
        base[name] = torch.randn(rows, cols).mul_(0.02)
        update = 0.001 * torch.randn(rows, cols) + torch.randn(rows, 8) @ torch.randn(8, cols) / 2000
        tuned[name] = base[name] + update
    sides = {"base": base, "tuned": tuned}
    return [
        str(write_checkpoint(folder / side, {name: one.to(torch.bfloat16) for name, one in own.items()}))
        for side, own in sides.items()
    ]


def took(*words: str) -> tuple[float, str]:
    """Run a command; return the processor seconds of all its processes, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "dgviz", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def run(names: list[str]) -> None:
    """Print the table."""
    torch.manual_seed(0)
    os.environ |= {"OMP_NUM_THREADS": "1"}
    print("| pair | stage | foretold, s | took, s | ratio | written, foretold | written |")
    print("|---|---|---|---|---|---|---|")
    for name, shapes in ((name, PAIRS[name]) for name in names or PAIRS):
        with tempfile.TemporaryDirectory() as folder:
            pair = write_sides(Path(folder), shapes)
            os.environ["DGVIZ_CACHE_DIR"] = f"{folder}/cache"
            stages = {stage["name"]: stage for stage in json.loads(took("plan", *pair, "--json")[1])["stages"]}
            out = f"{folder}/out", f"{folder}/alone"
            commands = {
                "scan": ("scan", *pair, "--workers", "1"),
                "repair after it": ("repair", *pair, out[0]),
                "repair alone": ("repair", *pair, out[1]),
            }
            for stage, words in commands.items():
                if stage == "repair alone":
                    os.environ["DGVIZ_CACHE_DIR"] = f"{folder}/other"
                seconds, _ = took(*words)
                there = Path(folder, "cache") if stage == "scan" else Path(words[-1])
                written = sum(file.stat().st_size for file in there.rglob("*") if file.is_file())
                own = stages[stage]
                ratio = own["core_seconds"] / seconds
                figures = f"{own['core_seconds']:.1f} | {seconds:.1f} | {ratio:.2f}"
                print(f"| {name} | {stage} | {figures} | {own['written']:,} | {written:,} |", flush=True)


if __name__ == "__main__":
    run(sys.argv[1:])
