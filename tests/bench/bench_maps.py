"""Figure 4 of one weight never seen: what its maps cost beside the decomposition that they are drawn from.

CPU seconds of one thread (the wall, synchronised, on a CUDA device), medians of rounds. The decomposition is what a
threshold needs: every singular value, and the triplets above it. The upper maps are (b) to (d), the lower ones (e) to
(g): of every direction, or with those that are dropped sketched, which is what pages draw. The last column holds the
sketch against every direction: root mean square of a block of rows over a sixteenth of the dropped directions, as a
share: its mean off, and the most.

Run: ``python -m tests.bench.bench_maps [--shapes MxN ...] [--rounds 2] [--device cpu] [--out FILE.md]``.
"""

import argparse
import datetime
import os
import platform
import statistics
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from dgviz.device import is_gpu
from dgviz.figures.figure4.panels import compute_entry_panels, compute_spectrum_panels
from dgviz.rmt.law import aspect_ratio, svht_coef
from dgviz.spectra.svd.decompose import decompose
from tests.deltas import spiked

SHAPES = "8192x3072", "4096x14336", "1024x4096"
SPIKES, BANDS, ROWS = 10, 16, 320
HEADER = (
    "| shape | decomposition s | upper maps s | lower, every direction s | lower, sketched s | whole view / "
    "decomposition | with every direction | sketch off, mean | most |\n|" + "---|" * 9
)


def make_update(m, n):
    """Return an update whose rows are uneven by a factor of three, with spikes to 12 times the edge."""
    return (spiked(m, n, SPIKES, 12) * torch.linspace(0.5, 1.5, m, dtype=torch.float64)[:, None]).float()


def timed(work, device):
    """Return what work returns, and its seconds."""
    clock = time.perf_counter if is_gpu(device) else time.process_time
    started = clock()
    found = work()
    if is_gpu(device):
        torch.cuda.synchronize()
    return found, clock() - started


def band_sizes(maps, kept):
    """Return the root mean square of every block of rows over bands of the directions that are dropped."""
    edges = np.linspace(kept, maps.shape[1], BANDS + 1).astype(int)
    return np.stack([np.sqrt((maps[:, a:b] ** 2).mean(axis=1)) for a, b in pairwise(edges)])


def measure(shape, device, rounds):
    """Return a row of the table."""
    m, n = map(int, shape.split("x"))
    delta = make_update(m, n).to(device)
    seconds, off = [], ()
    for _ in range(rounds):
        opened, whole = timed(lambda: decompose(delta, device), device)
        tau = svht_coef(aspect_ratio((m, n))) * float(np.median(opened.s))
        kept = int(np.count_nonzero(np.asarray(opened.s) > tau))
        _, triplets = timed(lambda own=opened, rank=kept: own.triplets(rank), device)
        _, upper = timed(lambda own=opened, rank=kept: compute_entry_panels(own, delta, rank), device)
        _, sketched = timed(lambda own=opened: compute_spectrum_panels(own), device)
        other = decompose(delta, device)
        other.triplets(kept)
        _, every = timed(lambda own=other: compute_spectrum_panels(own, sketch=False), device)
        seconds.append((whole + triplets, upper, every, sketched))
    rows, fresh = min(m, ROWS), decompose(delta, device)
    if fresh.sketches(kept):
        near = band_sizes(fresh.direction_maps(rows, kept).double().numpy(), kept)
        true = band_sizes(fresh.direction_maps(rows).double().numpy(), kept)
        off = np.abs(near / true - 1).mean(), np.abs(near / true - 1).max()
    whole, upper, every, sketched = (statistics.median(column) for column in zip(*seconds, strict=True))
    ratios = (whole + upper + sketched) / whole, (whole + upper + every) / whole
    cells = [f"{value:.2f}" for value in (whole, upper, every, sketched, *ratios)]
    cells += [f"{100 * value:.1f} %" for value in off] or ["not sketched", ""]
    return "| " + " | ".join([shape.replace("x", " x "), *cells]) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="*", default=SHAPES, metavar="MxN")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, on "
        f"{options.device}, load {os.getloadavg()[1]:.1f}.",
        "",
        HEADER,
    ]
    lines += [measure(shape, options.device, options.rounds) for shape in options.shapes]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
