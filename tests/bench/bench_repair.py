"""The whole repair of synthetic pairs by size against a plain Algorithm 1: seconds and peak memory, in one run.

Pairs have real widths (bfloat16, planted spikes over Gaussian noise). The plain one loads both state dicts and calls
``torch.linalg.svd`` on every matrix, which is what the published algorithm says and what public scripts do. Beside
them WiSE-FT against the same average by mergekit, where that is installed: the command with all its checks, then
without a comparison of logits, and then also without loading the output: mergekit does neither. All run cold, as
commands of their own, in turn; memory is what all processes of a command add to an interpreter with torch only.

Run: ``python -m tests.bench.bench_repair [--sizes NAME ...] [--rounds N] [--mergekit mergekit-yaml] [--out FILE]``.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file


def layer_shapes(width, depth):
    """Return the shapes of one layer's matrices."""
    return {"mlp.up_proj": (depth, width), "mlp.down_proj": (width, depth), "self_attn.q_proj": (width, width)}


SHAPES = layer_shapes(2048, 8192)
SIZES = {  # layers, width, depth
    "4 MB, p = 256": (4, 256, 768),
    "75 MB, p = 1024": (4, 1024, 4096),
    "208 MB, p = 1024": (11, 1024, 4096),
    "151 MB, 2048 x 8192": (2, 2048, 8192),
}
SPIKES, NOISE = 8, 2e-3

PLAIN = """
import sys, torch
from safetensors.torch import load_file, save_file
base, tuned = load_file(sys.argv[1] + "/model.safetensors"), load_file(sys.argv[2] + "/model.safetensors")
from dgviz.rmt.law import svht_coef, aspect_ratio
out = {}
for name, after in tuned.items():
    before = base[name]
    if after.ndim < 2:
        out[name] = after
        continue
    u, s, vh = torch.linalg.svd(after.float() - before.float(), full_matrices=False)
    keep = s > svht_coef(aspect_ratio(after.shape)) * s.quantile(0.5)
    out[name] = (before.float() + (u[:, keep] * s[keep]) @ vh[keep]).to(after.dtype)
save_file(out, sys.argv[3] + "/model.safetensors", metadata={"format": "pt"})
"""
AVERAGE = """
import sys
from contextlib import closing
from dgviz.checkpoint import open_pair
from dgviz.export import plan_export
from dgviz.export.loading import Loading
from dgviz.repair.hire import hire
from dgviz.repair.plan import RepairPlan
class NotLoaded(Loading):
    def prepare(self, left):
        pass
    def load(self, config, index):
        return {"skipped": "not asked for"}
load, *sides, out = sys.argv[1:]
kind = Loading if load == "load" else NotLoaded
plan = plan_export(open_pair(*sides), RepairPlan(method="wise_ft"), out)
with closing(hire(plan.pair.tensors, [plan.repair], "auto")) as executor, kind(plan, executor) as loading:
    loading.prepare(plan.total_bytes)
    from dgviz.export.write import iter_export
    list(iter_export(plan, executor, loading))
"""
IDLE = "import torch; torch.ones(64, 64) @ torch.ones(64, 64)"


def write_pair(directory, layers, shapes=SHAPES):
    """Write base and tuned; return the number of parameters."""
    generator = torch.Generator().manual_seed(0)
    sides = {"base": {}, "tuned": {}}
    for layer in range(layers):
        for module, (rows, columns) in shapes.items():
            name = f"model.layers.{layer}.{module}.weight"
            base = 0.02 * torch.randn(rows, columns, generator=generator)
            edge = NOISE * (rows**0.5 + columns**0.5)
            left = torch.linalg.qr(torch.randn(rows, SPIKES, generator=generator)).Q
            right = torch.linalg.qr(torch.randn(columns, SPIKES, generator=generator)).Q
            update = (left * torch.linspace(2, 12, SPIKES) * edge) @ right.T
            update += NOISE * torch.randn(rows, columns, generator=generator)
            sides["base"][name] = base.bfloat16()
            sides["tuned"][name] = (base + update).bfloat16()
        for tensors in sides.values():
            tensors[f"model.layers.{layer}.norm.weight"] = torch.ones(shapes["mlp.down_proj"][0]).bfloat16()
    for side, tensors in sides.items():
        (directory / side).mkdir(parents=True)
        save_file(tensors, directory / side / "model.safetensors", metadata={"format": "pt"})
    return sum(tensor.numel() for tensor in sides["base"].values())


def write_llama(directory):
    """Write a Llama of 100 million parameters and a neighbour of it, which every program for merging opens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings = {"vocab_size": 2000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6}
    model = LlamaForCausalLM(LlamaConfig(**settings, num_attention_heads=16)).bfloat16()
    model.save_pretrained(directory / "base")
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(1e-3 * torch.randn(tensor.shape).bfloat16())
    model.save_pretrained(directory / "tuned")


def run(command, cache):
    """Run a command with a cache of its own; return its seconds, CPU seconds and peak anonymous memory in MiB."""
    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "DGVIZ_CACHE_DIR": str(cache)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    told = threading.Thread(target=lambda: said.append(process.stderr.read()))
    said, peak = [], 0
    told.start()
    while process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        peak = max(peak, sum(map(anonymous_bytes, [process.pid, *(child.pid for child in children)])))
        time.sleep(0.02)
    told.join()
    if process.wait():
        raise SystemExit(f"{' '.join(command[:3])} failed: {said[0].decode()[-2000:]}")
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, peak / 2**20


def anonymous_bytes(pid):
    """Return a process's resident anonymous bytes (mapped files are the kernel's to drop); 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measure(commands, rounds, directory):
    """Run commands in turn; return the median seconds, CPU seconds and MiB of each."""
    figures = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            out = directory / f"{name}-{number}"
            if name in ("plain", "mergekit"):
                out.mkdir()
            figures[name].append(run([*command, str(out)], directory / f"cache-{name}-{number}"))
            print(name, *(f"{value:.1f}" for value in figures[name][-1]), file=sys.stderr)
            shutil.rmtree(out)
    return {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in figures.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mergekit", help="its program", default=shutil.which("mergekit-yaml"))
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dgviz-bench-"))
    repair, rows = [sys.executable, "-m", "dgviz", "repair"], {}
    try:
        _, _, idle = run([sys.executable, "-c", IDLE], directory)
        for size in options.sizes:
            layers, *widths = SIZES[size]
            place = directory / size.replace(" ", "-")
            write_pair(place, layers, layer_shapes(*widths))
            sides = [str(place / "base"), str(place / "tuned")]
            commands = {"plain": [sys.executable, "-c", PLAIN, *sides], "dgviz": [*repair, *sides]}
            rows[f"DG-Hard, {size}"] = measure(commands, options.rounds, place)
            shutil.rmtree(place)
        if options.mergekit:
            write_llama(directory)
            sides = [str(directory / "base"), str(directory / "tuned")]
            models = [{"model": side, "parameters": {"weight": 0.5}} for side in sides]
            recipe = {"merge_method": "linear", "dtype": "bfloat16", "models": models}
            (directory / "linear.yml").write_text(json.dumps(recipe))  # JSON is YAML
            commands = {
                "mergekit": [options.mergekit, str(directory / "linear.yml")],
                "dgviz": [*repair, *sides, "--method", "wise_ft"],
            }
            rows["WiSE-FT, 208 MB"] = measure(commands, options.rounds, directory)
            for load, said in (("load", "logits not compared"), ("not", "output not loaded")):
                commands["dgviz"] = [sys.executable, "-c", AVERAGE, load, *sides]
                rows[f"WiSE-FT, 208 MB, {said}"] = measure(commands, options.rounds, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    table = report(rows, idle)
    print(table)
    if options.out:
        options.out.write_text(table + "\n")


def report(rows, idle):
    """Return the table in Markdown."""
    lines = [
        f"Cold, both sides of a bfloat16 pair in the page cache; {datetime.date.today()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[1]:.1f}.",
        "",
        "| | against | seconds | ours | ratio | CPU seconds | ours | ratio | MiB above idle torch | ours |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        (other, theirs), (_, ours) = found.items()
        pairs = [f"{a:.1f} | {b:.1f} | {b / a:.2f}" for a, b in zip(theirs[:2], ours[:2], strict=True)]
        lines.append(f"| {name} | {other} | {' | '.join(pairs)} | {theirs[2] - idle:.0f} | {ours[2] - idle:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
