"""Families of transformers models in every layout: paired whole, repaired, loaded again, and computing the same.

``HF_HUB_OFFLINE=1 PYTHONPATH=. python tests/checkpoint/test_families.py`` writes docs/development/checkpoints.md.
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dgviz.checkpoint import open_pair
from tests.checkpoint.test_names import assert_complete, export, logits, reference_repair, save, stored
from tests.checkpoints import ARCHITECTURES, tiny_model, tune, write_checkpoint


@dataclass(frozen=True)
class Layout:
    """How both sides of a pair are stored: names of transformers 4 or 5, in one file or several."""

    title: str
    old_base: bool
    old_tuned: bool
    sharded_base: bool
    sharded_tuned: bool


LAYOUTS = {
    "single": Layout("both in one file, v5 names", False, False, False, False),
    "sharded": Layout("both sharded, v5 names", False, False, True, True),
    "old": Layout("both in one file, v4 names", True, True, False, False),
    "v4-to-v5": Layout("base in one file with v4 names, tuned sharded with v5 names", True, False, False, True),
    "v5-to-v4": Layout("base sharded with v5 names, tuned in one file with v4 names", False, True, True, False),
}


@dataclass(frozen=True)
class Outcome:
    """What came of one family in one layout; differences are to a repair in float64 that does not use dgviz."""

    tensors: int
    repaired: int
    matched: int
    weight: float
    logit: float
    scale: float


def repair_family(directory: Path, family: str, layout: Layout) -> Outcome:
    """Save a tiny model and its fine-tune, repair, load with transformers in float64 and compare."""
    model = tiny_model(family)
    base = save(model, directory / "base", layout.old_base, layout.sharded_base)
    twin = save(model, directory / "twin", layout.old_tuned, sharded=False)
    tuned = save(tune(model), directory / "tuned", layout.old_tuned, layout.sharded_tuned)
    pair = open_pair(base, tuned)
    assert_complete(pair)
    assert (len(pair.base.shards) > 1, len(pair.tuned.shards) > 1) == (layout.sharded_base, layout.sharded_tuned)
    export(pair, directory / "out")
    reference = reference_repair(stored(twin), stored(tuned))
    written = stored(directory / "out")
    assert written.keys() == reference.keys()
    weight = max((written[name].double() - tensor).abs().max().item() for name, tensor in reference.items())
    write_checkpoint(directory / "reference", reference, json.loads((tuned / "config.json").read_text()))
    found, expected = (logits(family, directory / side, torch.float64) for side in ("out", "reference"))
    logit = (found - expected).abs().max().item()
    matched = sum(bool(row.via) for row in pair.tensors)
    return Outcome(len(pair.tensors), len(pair.repairable), matched, weight, logit, expected.abs().max().item())


CROSSED = ("v4-to-v5", "v5-to-v4")
CASES = [(family, layout) for family in ARCHITECTURES for layout in CROSSED]
CASES += [(family, layout) for family in ("llama_tied", "mixtral") for layout in LAYOUTS if layout not in CROSSED]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "layout"), CASES)
def test_a_family_is_repaired_whole(tmp_path, family, layout):
    """The output has tuned's names and shards, loads with every parameter found, and computes the same."""
    outcome = repair_family(tmp_path, family, LAYOUTS[layout])
    assert outcome.repaired > 0
    assert outcome.weight <= 2e-7
    assert outcome.logit <= 1e-5 * max(1.0, outcome.scale)


def write_table(file: Path) -> None:
    """Write the table of families and layouts to the end of docs/development/checkpoints.md."""
    import transformers

    layouts = "\n".join(f"- `{name}`: {layout.title}." for name, layout in LAYOUTS.items())
    lines = [
        "## Families",
        "",
        f"A tiny random model of each of {len(ARCHITECTURES)} families (transformers {transformers.__version__}, "
        "float32) is saved as base, moved by noise and saved as tuned, and repaired with a fixed rank. Pairing is "
        "complete when every tensor of both sides has its other side. transformers loads the output, must find every "
        "parameter, and runs it in float64. Each cell has the largest difference of a logit to the same repair done "
        "in float64 without dgviz (what is left is rounding to float32), then the number of tensors that were paired "
        "under another name.",
        "",
        layouts,
        "",
        f"| family | tensors | repaired | largest logit | {' | '.join(LAYOUTS)} |",
        f"|{'---|' * (4 + len(LAYOUTS))}",
    ]
    worst = 0.0
    for family in ARCHITECTURES:
        outcomes = {}
        for name, layout in LAYOUTS.items():
            with tempfile.TemporaryDirectory() as directory:
                outcomes[name] = repair_family(Path(directory), family, layout)
        cells = [f"{outcome.logit:.1e}, {outcome.matched}" for outcome in outcomes.values()]
        counts = [
            " or ".join(dict.fromkeys(str(getattr(outcome, key)) for outcome in outcomes.values()))
            for key in ("tensors", "repaired")
        ]
        worst = max(worst, *(outcome.logit for outcome in outcomes.values()))
        row = [family, *counts, f"{outcomes['single'].scale:.2f}", *cells]
        print(*row, sep="  ", file=sys.stderr)
        lines.append(f"| {' | '.join(row)} |")
    lines += [
        "",
        f"All {len(ARCHITECTURES) * len(LAYOUTS)} are paired completely; the largest difference of all is "
        f"{worst:.1e}. `HF_HUB_OFFLINE=1 PYTHONPATH=. python tests/checkpoint/test_families.py` makes this page.",
    ]
    file.write_text(file.read_text().partition("## Families")[0] + "\n".join(lines) + "\n")


if __name__ == "__main__":
    write_table(Path(__file__).parents[2] / "docs" / "development" / "checkpoints.md")
