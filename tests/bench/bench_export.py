"""An export's memory against shard size, and what rounding leaves of a repair, by size of the update and dtype.

Memory: the same bfloat16 tensors in one file and in one file each; peak anonymous memory of the command.
Gain: ``<O, D*> / <D*, D*>`` of the whole model, and the share of the removed noise that rounding put back, as
the exports themselves report them, of float32 pairs whose update has the given size relative to the weights (rank 8
over noise of equal norm; weights of deviation 0.02 that bfloat16 holds exactly, as published ones often are).

Run: ``python -m tests.bench.bench_export [--out FILE]``.
"""

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from dgviz.checkpoint import open_pair
from dgviz.export import plan_export
from dgviz.export.report import read_report
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.bench.bench_repair import anonymous_bytes
from tests.checkpoints import write_checkpoint

RANK = 8
SIZES = (5e-3, 1e-3, 2.5e-4)
DTYPES = ("float32", "bfloat16", "float16")
MIB = 2**20


def planted_pair(directory, shape, count, size, shards=1, dtype=torch.float32):
    """Write a pair of `count` matrices whose update has `size` times their norm: half its energy in 8 directions."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = shape
    sides = {"base": {}, "tuned": {}}
    for number in range(count):
        base = (0.02 * torch.randn(shape, generator=generator)).bfloat16().to(dtype)
        left = torch.linalg.qr(torch.randn(rows, RANK, generator=generator)).Q
        right = torch.linalg.qr(torch.randn(columns, RANK, generator=generator)).Q
        signal, noise = left @ right.T, torch.randn(shape, generator=generator)
        update = signal / torch.linalg.norm(signal) + noise / torch.linalg.norm(noise)
        update *= size * torch.linalg.norm(base.float()) / torch.linalg.norm(update)
        sides["base"][f"layers.{number}.weight"] = base
        sides["tuned"][f"layers.{number}.weight"] = (base.float() + update).to(dtype)
    return [
        write_checkpoint(directory / side, tensors, {"name": "synthetic"}, shards) for side, tensors in sides.items()
    ]


def repair(base, tuned, out):
    """Run the command; return its report, seconds, and peak anonymous bytes."""
    command = [sys.executable, "-m", "dgviz", "repair", str(base), str(tuned), str(out), "--device", "cpu"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.01)
    if process.wait():
        raise SystemExit(process.stderr.read().decode()[-2000:])
    return read_report(out), time.perf_counter() - started, peak


def memory_table(directory, count, shape):
    """Return the table of peak memory: one file against one file per tensor."""
    lines = [
        f"Peak anonymous memory of `repair` on the same {count} bfloat16 matrices of {shape[0]} x {shape[1]} "
        f"({shape[0] * shape[1] * 2 / MIB:.0f} MiB each):",
        "",
        "| files | largest file, MiB | peak, MiB | seconds |",
        "|---|---|---|---|",
    ]
    for shards in (1, count):
        place = directory / f"memory-{shards}"
        pair = planted_pair(place, shape, count, 5e-3, shards, torch.bfloat16)
        report, seconds, peak = repair(*pair, place / "out")
        largest = max(file["bytes"] for file in report["files"].values())
        lines.append(f"| {shards} | {largest / MIB:.0f} | {peak / MIB:.0f} | {seconds:.1f} |")
        print(lines[-1], file=sys.stderr)
        shutil.rmtree(place)
    return "\n".join(lines)


def gain_table(directory, count, shape):
    """Return the table of gains, a row per size and a column per output dtype."""
    lines = [
        f"Gain of the whole model, and in brackets the removed noise that rounding put back ({count} float32 "
        f"matrices of {shape[0]} x {shape[1]}, rank {RANK} and noise of equal norm; gain 1 is no loss):",
        "",
        "| size of the update, relative | " + " | ".join(DTYPES) + " |",
        "|---|" + "---|" * len(DTYPES),
    ]
    for size in SIZES:
        place = directory / f"gain-{size}"
        pair = planted_pair(place, shape, count, size)
        cells = []
        for dtype in DTYPES:
            plan = plan_export(open_pair(*pair), RepairPlan(dtype=dtype), place / dtype)
            overall = list(iter_export(plan, "cpu"))[-1].report["overall"]
            cells.append(f"{overall['gain']:.4f} ({overall['noise_restored']:.1%})")
        lines.append(f"| {size:g} | " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr)
        shutil.rmtree(place)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the tables there too")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dgviz-bench-"))
    try:
        text = "\n\n".join(
            [
                f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}.",
                gain_table(directory, 2, (512, 384)),
                memory_table(directory, 12, (2048, 1024)),
            ]
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
