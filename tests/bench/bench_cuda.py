"""All that is to be known of a CUDA device, by one command: speed, accuracy, waits, memory, and the sizes to choose.

The engine against ``torch.linalg.svd`` as in `bench_engine`, on the device; then scans and repairs of a bfloat16 pair
on it and on the CPU: one large weight, and separate experts one by one and together; whole exports, with contents
hashed and files written between two tensors, or meanwhile; scans by several processes that share the device; last,
how the time of the large weight depends on the sizes that were chosen without a device at hand. Times are the wall,
synchronised, of the second run. Waits are those that ``torch.cuda.set_sync_debug_mode`` warns of.

Run: ``python -m tests.bench.bench_cuda [--quick] [--out FILE.md]``.
"""

import argparse
import datetime
import os
import platform
import shutil
import tempfile
import time
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file

from dgviz.checkpoint import open_pair
from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.jobs.executor import InProcess, InThread, NamedTask, Processes
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from dgviz.spectra.scan import scan_weights
from dgviz.spectra.schedule import batch_size, plan_tasks
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd import solve
from dgviz.spectra.weight import weights_of
from tests.bench import bench_engine
from tests.deltas import FAMILIES

DEVICE = "cuda:0"
LARGE, EXPERT, EXPERTS = (14336, 4096), (2048, 768), 64
CROWD, CROWDS = ((4096, 4096), 24), (1, 2, 4)  # weights, and processes that share a device
CROWD_HEADER = "| processes | ms a matrix | MB/s of both sides |\n|---|---|---|"
WHERE = {"hashed and written in between": InProcess, "meanwhile": InThread}
EXPORT_HEADER = "| export | tensors are | ms a matrix | MB/s of both sides |\n|---|---|---|---|"
SWEEPS = {
    "dgviz.device._GPU_BLOCK": [2**exponent for exponent in (20, 22, 24, 26)],
    "dgviz.spectra.svd.gram._GPU_LEAF": [256, 1024, 2048, 4096],
}
MIB = 2**20


@dataclass(frozen=True)
class Run:
    """One way to work on some weights, as measured."""

    seconds: float
    waits: int
    peak: int


def write_pair(folder, shape, count):
    """Write a pair of separate weights with planted spikes; open it."""
    sides = {"base": {}, "tuned": {}}
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        base, update = (torch.randn(shape, generator=generator) for _ in range(2))
        left, right = (torch.randn(length, 6, generator=generator) for length in shape)
        update += left @ right.T  # each about as long as sqrt(m n), well above sqrt(m) + sqrt(n)
        name = f"model.layers.0.mlp.experts.{number}.up_proj.weight"
        sides["base"][name], sides["tuned"][name] = (x.bfloat16() for x in (0.02 * base, 0.02 * base + 2e-3 * update))
    for side, tensors in sides.items():
        (folder / side).mkdir(parents=True)
        save_file(tensors, folder / side / "model.safetensors", metadata={"format": "pt"})
    return open_pair(folder / "base", folder / "tuned")


def scanning(pair, device, together):
    """Return what scans a pair into a new store, so many matrices at once."""
    weights = weights_of(pair)

    def scan(store):
        for start in range(0, len(weights), together):
            some = weights[start : start + together]
            for row in scan_weights(some, [("dg_hard", {})] * len(some), device, torch.get_num_threads(), store):
                if isinstance(row, Exception):
                    raise row

    return scan


def repairing(pair, plan, device):
    """Return what repairs every tensor of a pair with nothing stored."""

    def repair(store):
        for paired in pair.tensors:
            repair_tensor(paired, plan, device, SpectrumStore(store))

    return repair


def measure(work, device, folder):
    """Return the second of two runs; the first loads code and fills caches."""
    for number in range(2):
        on_gpu = device != "cpu"
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.set_sync_debug_mode("warn" if number == 0 else "default")
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work(folder / str(number))
        if number == 0:
            waits = sum("synchron" in str(warning.message) for warning in caught)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        shutil.rmtree(folder / str(number), ignore_errors=True)
    return Run(seconds, waits, torch.cuda.max_memory_allocated() if device != "cpu" else 0)


PAIR_HEADER = (
    "| what | on | ms a matrix | MB/s of both sides | waits a matrix | peak MiB | reserved MiB |\n|" + "---|" * 7
)


def pair_rows(title, shape, count, folder):
    """Yield rows of scans and repairs of some weights of one shape."""
    pair = write_pair(folder / "pair", shape, count)
    tasks = plan_tasks(pair)
    stored = sum(task.stored for task in tasks)
    most = batch_size(tasks[0].weight, DEVICE)
    works = [("scan", DEVICE, 1, scanning(pair, DEVICE, 1))]
    if most > 1:
        works.append((f"scan, {most} together", DEVICE, most, scanning(pair, DEVICE, most)))
    works += [
        ("repair, dg_hard", DEVICE, 1, repairing(pair, RepairPlan(), DEVICE)),
        ("repair, wise_ft", DEVICE, 1, repairing(pair, RepairPlan(method="wise_ft"), DEVICE)),
        ("repair, ties_per_tensor", DEVICE, 1, repairing(pair, RepairPlan(method="ties_per_tensor"), DEVICE)),
        ("scan", "cpu", 1, scanning(pair, "cpu", 1)),
    ]
    for what, device, together, work in works:
        run = measure(work, device, folder)
        reserved = sum(task.memory for task in tasks[:together])
        cells = [
            f"{title}: {what}",
            device,
            f"{1e3 * run.seconds / count:.2f}",
            f"{stored / run.seconds / 1e6:.0f}",
            f"{run.waits / count:.1f}",
            f"{run.peak / MIB:.0f}",
            f"{reserved / MIB:.0f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def export_rows(shape, count, folder, device=DEVICE):
    """Yield rows of whole exports, with nothing stored and no hash remembered."""
    pair = write_pair(folder / "pair", shape, count)
    stored = sum(task.stored for task in plan_tasks(pair))
    time.sleep(2.1)  # hashes of files that were written just now are not remembered
    for method in ("dg_hard", "wise_ft"):
        for said, where in WHERE.items():

            def work(out, method=method, where=where):
                with (
                    mock.patch.dict(os.environ, DGVIZ_CACHE_DIR=f"{out}-cache"),
                    closing(where(device)) as executor,
                ):
                    list(iter_export(plan_export(pair, RepairPlan(method=method), out), executor))

            run = measure(work, device, folder)
            yield f"| {method} | {said} | {1e3 * run.seconds / count:.2f} | {stored / run.seconds / 1e6:.0f} |"


def crowd_rows(shape, count, folder, device=DEVICE, crowds=CROWDS):
    """Yield rows of the scan of some weights by one process on a device, and by several."""
    pair = write_pair(folder / "crowd", shape, count)
    tasks = plan_tasks(pair)
    stored, most = sum(task.stored for task in tasks), batch_size(tasks[0].weight, device)
    batches = [[task.weight for task in tasks[start : start + most]] for start in range(0, count, most)]
    scan = NamedTask("dgviz.spectra.scan", "scan_weights")
    for crowd in crowds:
        executor = Processes(crowd, device, "dgviz.spectra.scan")

        def work(store, executor=executor):
            shared = {"threads": 1, "root": store}
            done = [
                executor.submit(scan, weights=some, settings=[("dg_hard", {})] * len(some), **shared)
                for some in batches
            ]
            for future in done:
                for row in future.result():
                    if isinstance(row, Exception):
                        raise row

        with closing(executor):
            run = measure(work, device, folder)
        yield f"| {crowd} | {1e3 * run.seconds / count:.2f} | {stored / run.seconds / 1e6:.0f} |"


def sweep_rows(shape, folder):
    """Yield rows of the scan of one weight under other sizes."""
    pair = write_pair(folder / "sweep", shape, 1)
    for name, values in SWEEPS.items():
        for value in values:
            with mock.patch(name, value):
                run = measure(scanning(pair, DEVICE, 1), DEVICE, folder)
            yield f"| {name} | {value} | {1e3 * run.seconds:.1f} | {run.peak / MIB:.0f} |"


def tables(
    quick, large=LARGE, expert=EXPERT, experts=EXPERTS, cases=None, families=FAMILIES, crowd=CROWD, crowds=CROWDS
):
    """Yield the report line by line."""
    yield "# A CUDA device, as measured\n"
    yield (
        f"{datetime.date.today()}, {torch.cuda.get_device_name(0)}, {platform.platform()}, "
        f"{bench_engine.processor()}, Python {platform.python_version()}, torch {torch.__version__}; Gram matrices "
        f"of float32 in {str(solve.gram_dtype(DEVICE)).removeprefix('torch.')}. By `make bench-cuda`.\n"
    )
    yield f"## The engine\n\n{bench_engine.HEADER}"
    for case in cases or bench_engine.CASES:
        if quick <= case.quick:
            yield bench_engine.measure(case, DEVICE)
    yield f"\n## Scan and repair\n\n{PAIR_HEADER}"
    folder = Path(tempfile.mkdtemp(prefix="dgviz-bench-"))
    try:
        yield from pair_rows(f"{experts} experts of {expert[0]} x {expert[1]}", expert, experts, folder / "experts")
        yield from pair_rows(f"{large[0]} x {large[1]}", large, 1, folder / "large")
        yield f"\n## Exports of {crowd[1]} of {crowd[0][0]} x {crowd[0][1]}\n\n{EXPORT_HEADER}"
        yield from export_rows(*crowd, folder / "exports")
        yield f"\n## Processes on one device, scanning {crowd[1]} of {crowd[0][0]} x {crowd[0][1]}\n\n{CROWD_HEADER}"
        yield from crowd_rows(*crowd, folder / "crowds", crowds=crowds)
        yield f"\n## Sizes, scanning {large[0]} x {large[1]}\n\n| size | value | ms | peak MiB |\n|---|---|---|---|"
        yield from sweep_rows(large, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not quick:
        yield f"\n## Accuracy against float64 SVD, the worst of four shapes\n\n{bench_engine.ACCURACY_HEADER}"
        for family in families:
            yield bench_engine.accuracy(family, DEVICE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only shapes of the engine that take seconds")
    parser.add_argument("--out", type=Path, help="write the tables there too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA device on this machine, so there is nothing to measure; run make bench-cuda on one.")
        return
    written = []
    for line in tables(options.quick):
        written.append(line)
        print(line, flush=True)
    if options.out:
        options.out.write_text("\n".join(written) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
