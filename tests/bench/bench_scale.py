"""A mixture of many small experts: what opening, the scan, and the figures of a whole model cost for each matrix.

``python -m tests.bench.bench_scale [--layers 4] [--experts 32] [--home FOLDER]`` makes the pair, scans it twice and
prints a table in Markdown. CPU seconds, for the machine may have other work. In a folder that is given, pair and
store stay for the next run; 94 layers of 128 experts are 36,000 matrices, whose first scan takes most of an hour.
"""

import argparse
import contextlib
import datetime
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from dgviz.analysis.assessed import read_assessments
from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_map import map_tower, towers
from dgviz.analysis.model_spectra import assess, read_spectra, verdict_of
from dgviz.app.kept import weigh
from dgviz.app.pair import contents_of
from dgviz.checkpoint import inspect_pair
from dgviz.spectra.store import SpectrumStore
from tests.checkpoints import planted_update, write_checkpoint

ROOT = Path(__file__).parents[2]
SIDE = 32  # rows and columns of an expert: the smallest that is repaired


def write_experts(home, layers, experts):
    """Write a pair of experts stored one by one, unless it is there."""
    if not (home / "tuned").exists():
        generator = torch.Generator().manual_seed(0)
        names = [
            f"model.layers.{layer}.mlp.experts.{expert}.{module}_proj.weight"
            for layer in range(layers)
            for expert in range(experts)
            for module in ("gate", "up", "down")
        ]
        base = {name: torch.randn(SIDE, SIDE, generator=generator) for name in names}
        config = {"model_type": "qwen3_moe", "num_hidden_layers": layers, "num_experts": experts}
        for side, tensors in (("base", base), ("tuned", planted_update(base))):
            write_checkpoint(home / side, tensors, config)
    return str(home / "base"), str(home / "tuned")


def cpu_seconds():
    """CPU seconds of this process and of those it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measure(home, layers, experts):
    """Return what was measured: a title and CPU seconds; and the number of matrices."""
    pair_paths = write_experts(home, layers, experts)
    os.environ |= {"DGVIZ_CACHE_DIR": str(home / "cache"), "DGVIZ_STATE_DIR": str(home / "state")}
    rows = []

    def timed(title, work):
        started = cpu_seconds()
        found = work()
        rows.append((title, cpu_seconds() - started))
        return found

    def scan():
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([sys.executable, "-m", "dgviz", "scan", *pair_paths], cwd=ROOT, check=True, **quiet)

    time.sleep(2.1)  # contents of files younger than this are not remembered
    if not (home / "cache").exists():
        timed("first scan", scan)
    timed("repeated scan", scan)
    pair = timed("opening", lambda: inspect_pair(*pair_paths))
    timed("sampling of contents", lambda: [contents_of(side) for side in (pair.base, pair.tuned)])
    spectra = timed("reading the stored spectra", lambda: read_spectra(pair))
    assessed = timed("thresholds", lambda: [assess(stored, "dg_hard", {}) for stored in spectra.weights])
    timed("verdicts", lambda: [row.diagnosis for row in assessed])
    store = SpectrumStore()
    timed("thresholds and verdicts, kept", lambda: read_assessments(spectra, "dg_hard", {}, store))
    tower = next(iter(towers(tensor.name for tensor in pair.repairable)))
    timed("map", lambda: map_tower(assessed, spectra.missing, FIGURES["rank"], tower))
    timed("verdict on the model", lambda: verdict_of(assessed, pair.base.config))
    timed("weighing what the server keeps", lambda: weigh((pair, assessed)))
    return rows, len(assessed)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--home", type=Path, help="where pair and store lie, and stay")
    options = parser.parse_args()
    home = (
        contextlib.nullcontext(options.home) if options.home else tempfile.TemporaryDirectory(prefix="dgviz-bench-")
    )
    with home as folder:
        rows, count = measure(Path(folder), options.layers, options.experts)
    print(f"{count:,} matrices; {datetime.date.today()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}:\n")
    print("| | CPU seconds | ms a matrix |\n|---|---|---|")
    for title, seconds in rows:
        print(f"| {title} | {seconds:.2f} | {1000 * seconds / count:.2f} |")


if __name__ == "__main__":
    main()
