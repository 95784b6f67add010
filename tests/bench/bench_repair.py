"""The whole repair of a synthetic pair against a plain Algorithm 1: seconds and peak memory, in one run.

The pair has real widths (2048 x 8192 and 2048 x 2048, bfloat16, planted spikes over Gaussian noise). The plain one
loads both state dicts and calls ``torch.linalg.svd`` on every matrix, which is what the published algorithm says and
what public scripts do. Both run as processes of their own, in turn; memory is peak anonymous memory net of an
interpreter that has imported torch and does nothing else.

Run: ``python -m tests.bench.bench_repair [--layers N] [--rounds N] [--out FILE]``.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPES = {"mlp.up_proj": (8192, 2048), "mlp.down_proj": (2048, 8192), "self_attn.q_proj": (2048, 2048)}
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
IDLE = "import torch; torch.ones(64, 64) @ torch.ones(64, 64)"


def write_pair(directory, layers):
    """Write base and tuned; return the number of parameters."""
    generator = torch.Generator().manual_seed(0)
    sides = {"base": {}, "tuned": {}}
    for layer in range(layers):
        for module, (rows, columns) in SHAPES.items():
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
            tensors[f"model.layers.{layer}.norm.weight"] = torch.ones(2048, dtype=torch.bfloat16)
    for side, tensors in sides.items():
        (directory / side).mkdir()
        save_file(tensors, directory / side / "model.safetensors", metadata={"format": "pt"})
    return sum(tensor.numel() for tensor in sides["base"].values())


def run(command):
    """Run a command; return its seconds and peak anonymous memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.02)
    error = process.stderr.read().decode()
    if process.wait():
        raise SystemExit(f"{' '.join(command[:3])} failed: {error[-2000:]}")
    return time.perf_counter() - started, peak / 2**20


def anonymous_bytes(pid):
    """Return a process's resident anonymous bytes (mapped files are the kernel's to drop); 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8, help="8 layers are 302M parameters")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dgviz-bench-"))
    try:
        parameters = write_pair(directory, options.layers)
        base, tuned = str(directory / "base"), str(directory / "tuned")
        _, idle = run([sys.executable, "-c", IDLE])
        figures = {"plain": [], "dgviz": []}
        for round_number in range(options.rounds):
            for name in figures:
                out = directory / f"{name}-{round_number}"
                if name == "plain":
                    out.mkdir()
                    command = [sys.executable, "-c", PLAIN, base, tuned, str(out)]
                else:
                    command = [sys.executable, "-m", "dgviz", "repair", base, tuned, str(out), "--json"]
                figures[name].append(run(command))
                print(name, *(f"{value:.1f}" for value in figures[name][-1]), file=sys.stderr)
        rank = json.loads((directory / "dgviz-0" / "dgviz.json").read_text())["tensors"]
        found = sorted({row["matrices"][0]["rank"] for row in rank.values() if row["action"] == "repair"})
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    table = report(figures, idle, parameters, found)
    print(table)
    if options.out:
        options.out.write_text(table + "\n")


def report(figures, idle, parameters, ranks):
    """Return the table in Markdown."""
    seconds = {name: statistics.median(value for value, _ in runs) for name, runs in figures.items()}
    memory = {name: statistics.median(value for _, value in runs) - idle for name, runs in figures.items()}
    lines = [
        f"Whole repair of a bfloat16 pair of {parameters / 1e6:.0f}M parameters (2048 x 8192 and 2048 x 2048), "
        f"{SPIKES} spikes planted per matrix, {' or '.join(map(str, ranks))} found; {datetime.date.today()}, "
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}.",
        "",
        "| | seconds | peak memory above idle torch, MiB |",
        "|---|---|---|",
        f"| plain Algorithm 1 | {seconds['plain']:.1f} | {memory['plain']:.0f} |",
        f"| dgviz repair | {seconds['dgviz']:.1f} | {memory['dgviz']:.0f} |",
        f"| ratio | {seconds['dgviz'] / seconds['plain']:.2f} | {memory['dgviz'] / memory['plain']:.2f} |",
    ]
    if not torch.cuda.is_available():
        lines += ["", "CUDA: not run, this machine has none."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
