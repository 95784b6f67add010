"""False keeps of every rule on noise without any signal, and what the diagnosis says of each.

Run: ``python -m tests.bench.bench_diagnosis [--shape M N] [--out FILE.md]``: prints tables of
docs/development/diagnosis.md.
"""

import argparse
import datetime
from pathlib import Path

import torch

from dgviz.rmt.assess import apply_rule
from dgviz.rmt.diagnosis import LIMITS, diagnose
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import RULES
from dgviz.spectra.entries import describe_entries
from dgviz.spectra.svd.decompose import decompose
from tests.deltas import low_rank, noise, through
from tests.noises import NOISES

COMPARED = [name for name in RULES if name not in ("reference", "known_sigma", "energy", "fixed_rank", "manual")]
SIGNALS = {
    "LoRA of rank 16, float32": low_rank,
    "LoRA of rank 16, merged in bfloat16": lambda m, n: through(torch.bfloat16, m, n, low_rank(m, n)),
    "zero": lambda m, n: torch.zeros(m, n, dtype=torch.float64),
}


def row(name, delta):
    """One line: what every rule keeps, the verdict and its flags."""
    delta = delta.float()
    found = decompose(delta, "cpu")
    base = tuned = None
    if "bfloat16" in name:  # the sides that tests.noises and tests.deltas made it of
        base = (0.02 * noise(*delta.shape, 9)).bfloat16()
        tuned = (base.double() + delta.double()).bfloat16()
    summary = describe_entries(delta, found, torch.ones(1) if base is None else base, tuned)
    spectrum = Spectrum(found.s.numpy(), tuple(delta.shape), {}, summary, name)
    kept = [str(apply_rule(spectrum, rule, {}, lambda: delta).rank) for rule in COMPARED]
    diagnosis = diagnose(spectrum, apply_rule(spectrum, "dg_hard", {}))
    flags = ", ".join(flag.check if flag.severity != "info" else f"({flag.check})" for flag in diagnosis.flags)
    return "| " + " | ".join([name, *kept, diagnosis.word, flags]) + " |"


def tables(shape):
    """The tables as Markdown."""
    lines = [
        f"{shape[0]} x {shape[1]}, one draw each, {datetime.date.today()}: singular values kept by each rule, the "
        "verdict on `dg_hard`, and its flags, those that only inform in brackets.",
        "",
        "| noise | " + " | ".join(f"`{name}`" for name in COMPARED) + " | verdict | flags |",
        "|---|" + "---|" * (len(COMPARED) + 2),
    ]
    lines += [row(name, make(*shape)) for name, make in (NOISES | SIGNALS).items()]
    return "\n".join(lines)


def limits():
    """The table of limits as Markdown."""
    rows = [f"| `{name}` | {limit.value:g} | {limit.reason} |" for name, limit in LIMITS.items()]
    return "\n".join(["| limit | value | why |", "|---|---|---|", *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=2, default=(1024, 384), metavar=("M", "N"))
    parser.add_argument("--out", type=Path, help="write the tables there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = f"{limits()}\n\n{tables(tuple(options.shape))}"
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
