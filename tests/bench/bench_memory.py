"""Does memory grow with depth? Peak anonymous memory of scan and repair for a pair and for one four times as deep.

Both pairs have the same widths (those of `bench_repair`). Each process of a scan counts with its own peak, whenever
it came, so the sum is what the machine must have at most. Mapped files do not count: the kernel drops them when it
needs the space. The bench fails if depth costs more than 5 %.

With ``--embedding`` it scans one weight of 151936 x 4096 instead, and compares its peak with what the scheduler had
reserved for it.

Run: ``python -m tests.bench.bench_memory [--layers N] [--embedding] [--out FILE]``.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

from dgviz.checkpoint import open_pair
from dgviz.spectra.schedule import WORKER_BYTES, plan_tasks
from tests.bench.bench_repair import NOISE, SHAPES, SPIKES, anonymous_bytes, write_pair

DEPTH, GROWTH = 4, 1.05
EMBEDDING = (151936, 4096)
MIB = 2**20


def run_tree(command, cache):
    """Run a command; return its seconds, the peak anonymous bytes of each of its processes, and its output."""
    started = time.perf_counter()
    environment = {**os.environ, "DGVIZ_CACHE_DIR": str(cache)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    peaks = {}
    while process.poll() is None:
        try:
            pids = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        except psutil.NoSuchProcess:
            break
        for pid in pids:
            peaks[pid] = max(peaks.get(pid, 0), anonymous_bytes(pid))
        time.sleep(0.01)
    output = process.stdout.read()  # a report of some kilobytes: it fits in the pipe until then
    if process.wait():
        raise SystemExit(f"{' '.join(command[1:4])} ended with {process.returncode}")
    return time.perf_counter() - started, list(peaks.values()), output


def measure(layers, directory):
    """Scan and repair a pair of so many layers, then repair it from the store; return rows of the table."""
    write_pair(directory, layers)
    base, tuned = directory / "base", directory / "tuned"
    for file in (*base.iterdir(), *tuned.iterdir()):
        os.utime(file, (1e9, 1e9))  # settled: hashes are remembered
    dgviz = [sys.executable, "-m", "dgviz"]
    commands = {
        "repair": ([*dgviz, "repair", str(base), str(tuned), str(directory / "out")], directory / "empty"),
        "scan, 2 workers": ([*dgviz, "scan", str(base), str(tuned), "--workers", "2", "--json"], directory / "cache"),
        "repair after the scan": (
            [*dgviz, "repair", str(base), str(tuned), str(directory / "out-2")],
            directory / "cache",
        ),
    }
    rows = {}
    for name, (command, cache) in commands.items():
        seconds, peaks, _ = run_tree([*command, "--device", "cpu"], cache)
        rows[name] = seconds, sum(peaks), len(peaks)
        print(f"{layers} layers, {name}: {seconds:.1f} s, {sum(peaks) / MIB:.0f} MiB", file=sys.stderr)
    return rows


def write_embedding(directory):
    """Write a bfloat16 pair of one embedding, in blocks of rows: a few strong directions over noise."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = EMBEDDING
    right = torch.linalg.qr(torch.randn(columns, SPIKES, generator=generator)).Q.T
    strength = torch.linspace(2, 12, SPIKES) * NOISE * (rows**0.5 + columns**0.5) / rows**0.5
    sides = {side: torch.empty(EMBEDDING, dtype=torch.bfloat16) for side in ("base", "tuned")}
    for start in range(0, rows, 8192):
        block = slice(start, min(start + 8192, rows))
        base = 0.02 * torch.randn(block.stop - start, columns, generator=generator)
        left = torch.randn(block.stop - start, SPIKES, generator=generator) * strength
        sides["base"][block] = base
        sides["tuned"][block] = base + left @ right + NOISE * torch.randn(base.shape, generator=generator)
    for side in list(sides):
        (directory / side).mkdir()
        save_file({"embed.weight": sides.pop(side)}, directory / side / "model.safetensors")


def bench_embedding(directory):
    """Return a line about the scan of a large embedding, and whether it stayed within what was reserved."""
    write_embedding(directory)
    base, tuned = directory / "base", directory / "tuned"
    reserved = plan_tasks(open_pair(base, tuned))[0].memory + WORKER_BYTES
    command = [sys.executable, "-m", "dgviz", "scan", str(base), str(tuned), "--json", "--device", "cpu"]
    seconds, peaks, output = run_tree(command, directory / "cache")
    (tensor,) = json.loads(output)["weights"].values()
    (row,) = tensor["matrices"]
    line = (
        f"Scan of one {EMBEDDING[0]} x {EMBEDDING[1]} bfloat16 weight: peak {max(peaks) / MIB:.0f} MiB in its "
        f"process, {reserved / MIB:.0f} MiB reserved, {seconds:.0f} s, rank {row['rank']}, route {row['route']}."
    )
    return line, max(peaks) <= reserved


def report(shallow, deep, layers):
    """Return the table in Markdown, and whether depth cost no more than it may."""
    largest = max(rows * columns for rows, columns in SHAPES.values())
    lines = [
        f"Peak anonymous memory, all processes of a command together, of bfloat16 pairs of {layers} and "
        f"{layers * DEPTH} layers ({', '.join(f'{m} x {n}' for m, n in SHAPES.values())}); largest tensor "
        f"{largest * 2 / MIB:.0f} MiB as stored, {largest * 4 / MIB:.0f} MiB in float32; {datetime.date.today()}, "
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}.",
        "",
        f"| | processes | {layers} layers, MiB | {layers * DEPTH} layers, MiB | ratio | per stored byte of the "
        f"largest tensor | seconds, {layers * DEPTH} layers |",
        "|---|---|---|---|---|---|---|",
    ]
    bounded = True
    for name, (_, before, _) in shallow.items():
        seconds, after, processes = deep[name]
        bounded &= after <= GROWTH * before
        lines.append(
            f"| {name} | {processes} | {before / MIB:.0f} | {after / MIB:.0f} | {after / before:.3f} | "
            f"{after / (2 * largest):.1f} | {seconds:.1f} |"
        )
    return "\n".join(lines), bounded


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2, help="of the shallow pair")
    parser.add_argument("--embedding", action="store_true", help="scan a large embedding instead")
    parser.add_argument("--out", type=Path, help="write the result there too")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dgviz-bench-"))
    try:
        if options.embedding:
            text, bounded = bench_embedding(directory)
        else:
            found = []
            for layers in (options.layers, options.layers * DEPTH):
                place = directory / str(layers)
                place.mkdir()
                found.append(measure(layers, place))
                shutil.rmtree(place)
            text, bounded = report(*found, options.layers)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    if not bounded:
        raise SystemExit("memory is not bounded as it should be")


if __name__ == "__main__":
    main()
