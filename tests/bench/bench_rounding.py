"""Rounding of stored weights: how far the floor holds, which merges are recognised, and verdicts on the demo's pairs.

Run: ``python -m tests.bench.bench_rounding [--out FILE.md]``: prints the tables of docs/development/diagnosis.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from dgviz.demo import demo_paths
from dgviz.rmt.assess import apply_rule
from dgviz.rmt.diagnosis import VERDICTS, diagnose
from dgviz.rmt.rounding_noise import rounding_noise, rounding_returned, rounding_spectrum
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.entries import describe_entries
from dgviz.spectra.svd.decompose import decompose
from tests.deltas import noise, power_law, with_values

M, N = 640, 384
BASE = (0.02 * noise(M, N, 9)).bfloat16()
UNEVEN = (0.02 * noise(M, N, 9) * torch.exp(0.7 * noise(M, 1, 3))).bfloat16()


def lora(rank, decades=0.0):
    """A product of two Gaussian factors, or one whose values fall by so many decades."""
    if decades:
        return with_values(M, N, np.logspace(0, -decades, rank))
    return noise(M, rank, 3) @ noise(rank, N, 4)


def few_directions(steps):
    """Eight directions, and noise of so many of the steps that weights of one standard deviation have."""
    signal = with_values(M, N, np.linspace(3, 1, 8))
    return lambda size: size * signal / rms(signal) + steps * 2.0**-14 * noise(M, N, 1)


def rms(matrix):
    return matrix.square().mean().sqrt()


def stored(update, base=BASE):
    return (base.double() + update).float().bfloat16()


def looked_at(base, tuned):
    delta = tuned.float() - base.float()
    found = decompose(delta, "cpu")
    summary = describe_entries(delta, found, base, tuned)
    return Spectrum(found.s.numpy(), tuple(delta.shape), {}, summary), found


def floors():
    """How far the floor is from the rounding of updates that are known."""
    lines = [
        "| base, update | update / weights | unchanged | stored of it, said / true | sigma, said / true "
        "| median of its spectrum | largest value |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = {
        "even base, noise": (BASE, noise(M, N, 1)),
        "even base, rank 16": (BASE, lora(16)),
        "even base, rank 4": (BASE, lora(4)),
        "even base, rank 1": (BASE, lora(1)),
        "rows log-normal .7, noise": (UNEVEN, noise(M, N, 1)),
    }
    for name, (base, update) in kinds.items():
        for relative in (1e-1, 1e-2, 3e-3, 1e-3, 2.5e-4):
            exact = 0.02 * relative * update / rms(update)
            tuned = stored(exact, base)
            rounding = rounding_noise(spectrum := looked_at(base, tuned)[0])
            held = tuned.double() - base.double()
            gain = float((held * exact).sum() / exact.square().sum())
            true = held - gain * exact
            values = torch.linalg.svdvals(true).numpy()
            said = rounding_spectrum(rounding, (M, N))
            lines.append(
                f"| {name} | {relative:g} | {100 * spectrum.summary['zero_share']:.0f} % "
                f"| {rounding.gain:.2f} / {gain:.2f} | {rounding.sigma / float(rms(true)):.3f} "
                f"| {np.median(said) / np.median(values):.2f} | {said[0] / values[0]:.2f} |"
            )
    return "\n".join(lines)


def merges():
    """What is called a merged LoRA and what is not, and what rounding puts back: said and real."""
    lines = [
        "| update | update / weights | kept | put back, said / true | verdict | flags |",
        "|---|---|---|---|---|---|",
    ]
    scaled = {
        **{f"LoRA of rank {rank}": lora(rank) for rank in (1, 4, 16, 64)},
        **{f"LoRA of rank 16 over {decades:g} decades": lora(16, decades) for decades in (1, 1.5)},
        **{f"full, s = r^-{power:g}": power_law(M, N, power) for power in (0.5, 1, 2)},
        "full, 120 values over 3 decades": with_values(M, N, np.logspace(0, -3, 120)),
    }
    made = {name: lambda size, update=update: size * update / rms(update) for name, update in scaled.items()}
    made |= {f"8 directions, noise of {steps:g} steps": few_directions(steps) for steps in (0.05, 0.2, 0.5, 1)}
    for name, make in made.items():
        for relative in (1e-2, 3e-3, 1e-3):
            tuned = stored(make(0.02 * relative))
            spectrum, found = looked_at(BASE, tuned)
            threshold = apply_rule(spectrum, "dg_hard", {})
            diagnosis = diagnose(spectrum, threshold)
            rank, said = threshold.rank, rounding_returned(spectrum, threshold.rank)
            left, right = found.triplets(rank)
            repaired = (left @ right).double()
            written = stored(repaired).double() - BASE.double()
            true = float(torch.linalg.norm(written - repaired)) / float(np.linalg.norm(spectrum.s[rank:]))
            flags = ", ".join(flag.check for flag in diagnosis.flags if flag.severity != "info")
            back = "-" if said is None else f"{said:.2f} / {true:.2f}"
            lines.append(f"| {name} | {relative:g} | {rank} | {back} | {diagnosis.word} | {flags} |")
    return "\n".join(lines)


def demo_pairs(directory):
    """The demo's fine-tunes, in float32 and bfloat16, and a LoRA of rank 8 merged in both: base and tuned of each."""
    paths = demo_paths()
    sides = {name: load_file(path / "model.safetensors") for name, path in paths.items()}
    adapted = {}
    for name, weight in sides["base"].items():
        if weight.ndim == 2 and ".attention." in name:
            # What the clean fine-tune did to the attention, as an adapter of rank 8 could have learned it.
            u, s, vh = torch.linalg.svd(sides["clean"][name].double() - weight.double(), full_matrices=False)
            adapted[name] = (weight.double() + (u[:, :8] * s[:8]) @ vh[:8]).float()
    cast = {name: {key: value.bfloat16() for key, value in tensors.items()} for name, tensors in sides.items()}
    half = cast["base"]
    steps = {name: adapted[name].double() - sides["base"][name].double() for name in adapted}
    sides["merged"] = sides["base"] | adapted
    cast["merged"] = half | {name: (half[name].double() + steps[name]).float().bfloat16() for name in adapted}
    written = {}
    for dtype, tensors in (("float32", sides), ("bfloat16", cast)):
        for name, values in tensors.items():
            folder = directory / f"{name}-{dtype}"
            folder.mkdir()
            save_file(values, folder / "model.safetensors")
            (folder / "config.json").write_text((paths["base"] / "config.json").read_text())
            written[name, dtype] = folder
    titles = {
        "clean": "clean fine-tune",
        "noisy": "noisy fine-tune",
        "merged": "LoRA of rank 8 on the attention, merged",
    }
    return [
        (f"{title}, {dtype}", written["base", dtype], written[name, dtype])
        for name, title in titles.items()
        for dtype in ("float32", "bfloat16")
    ]


def demo():
    """The verdict of ``python -m dgviz scan`` on each of the demo's pairs."""
    lines = [
        "| pair | verdict | matrices of each verdict | rounding in the bulk | main reason |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "DGVIZ_CACHE_DIR": str(Path(name) / "cache")}
        for title, base, tuned in demo_pairs(Path(name)):
            command = [sys.executable, "-m", "dgviz", "scan", str(base), str(tuned), "--json"]
            result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            report = json.loads(result.stdout)
            rows = [row for tensor in report["weights"].values() for row in tensor["matrices"]]
            verdicts = [row["diagnosis"]["verdict"] for row in rows]
            each = ", ".join(f"{verdicts.count(key)} {word}" for key, word in VERDICTS.items() if key in verdicts)
            shares = [row["rounding"]["share"] for row in rows if row["rounding"]]
            most = [row["rounding"]["share_most"] for row in rows if row["rounding"]]
            share = f"{100 * np.median(shares):.0f} to {100 * np.median(most):.0f} %" if shares else "none"
            flags = report["model"]["flags"]
            first = flags[0]["message"].partition(", such as")[0] if flags else ""
            lines.append(f"| {title} | {VERDICTS[report['model']['verdict']]} | {each} | {share} | {first} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the tables there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = "\n\n".join([floors(), merges(), demo()])
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
