"""Figures of a delta's entries for the store, gathered while the delta is at hand: what diagnosis needs later."""

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from dgviz.device import block_elements
from dgviz.rmt.law import sorted_median
from dgviz.rmt.threshold import DEGENERATE_MEDIAN, find_rule
from dgviz.spectra.delta import Sides, is_factored
from dgviz.spectra.moments import NonzeroBlock, compute_moments, find_nonzero, frobenius_norm
from dgviz.spectra.steps import measure_steps
from dgviz.spectra.svd.decompose import Decomposition
from dgviz.spectra.svd.products import full_float32
from dgviz.spectra.weight import Weight

# Directions this many times the bulk edge are signal in any noise that a check could still be asked about; noise of
# unequal variance raises its own false directions to less than that, and stays where the checks can see it.
STRONG = 2.0
_ROWS = 256  # widened to float64 at a time on a CPU
_MOST_STRONG = 1 / 8  # of p: with more of them the median is no measure of noise, which another check says


def describe_weight(
    weight: Weight, delta: torch.Tensor, decomposition: Decomposition, sides: Sides
) -> dict[str, Any]:
    """Return the figures of the entries of a weight's delta, as JSON."""
    origin, own = sides.base(), None if is_factored(weight) else sides.tuned()
    figures = describe_entries(delta, decomposition, origin, own)
    return figures | {"correlation": base_correlation(origin, delta)}


def describe_entries(
    delta: torch.Tensor, decomposition: Decomposition, base: torch.Tensor, tuned: torch.Tensor | None
) -> dict[str, Any]:
    """Return the moments of a delta less its strong directions, and the steps its sides are stored with, as JSON."""
    nonzero = find_nonzero(delta)
    rank, kept = _count_strong(decomposition, nonzero)
    with full_float32():
        strong = None
        if rank:
            # Those that a repair keeps are asked for next: a few more at once cost less than all of them again.
            left, right = decomposition.triplets(max(rank, kept))
            strong = left[:, :rank], right[:rank]
        size = frobenius_norm(base)
        if math.isinf(size):  # a mask among the weights: of those that are numbers
            size = frobenius_norm(base.masked_fill(base.isinf(), 0.0))
        figures = dataclasses.asdict(compute_moments(delta, size, nonzero, strong))
    steps = None if tuned is None else measure_steps(base, tuned, nonzero)
    return figures | ({} if steps is None else {"steps": dataclasses.asdict(steps)})


def base_correlation(base: torch.Tensor, delta: torch.Tensor) -> float | None:
    """Return the correlation of base's entries with tuned's, base plus delta; None where either has no spread."""
    sums = torch.zeros(5, dtype=torch.float64, device=delta.device)
    rows = max(1, block_elements(base.device, _ROWS * base.shape[1]) // base.shape[1])
    for before, change in zip(base.split(rows), delta.split(rows), strict=True):
        before = before.to(torch.float64).masked_fill(before.isinf(), 0.0)
        after = before + change
        sums += torch.stack(
            [before.sum(), after.sum(), (before * before).sum(), (after * after).sum(), (before * after).sum()]
        )
    first, second, before, after, both = (sums / base.numel()).tolist()
    spread = (before - first * first) * (after - second * second)
    return (both - first * second) / math.sqrt(spread) if spread > 1e-20 * before * after else None


def _count_strong(decomposition: Decomposition, nonzero: NonzeroBlock) -> tuple[int, int]:
    """Return how many directions lie far above the bulk edge, and how many DG-Hard keeps; neither beyond the most.

    None where the median measures no noise.
    """
    p = min(nonzero.shape)
    s = np.asarray(decomposition.s, dtype=np.float64)[:p]
    if p < 2 or sorted_median(s) <= DEGENERATE_MEDIAN * s[0]:
        return 0, 0
    most = int(_MOST_STRONG * p)
    kept = find_rule("dg_hard").apply(s, nonzero.shape).rank
    edge = find_rule("mp_edge").apply(s, nonzero.shape).tau
    return min(int(np.count_nonzero(s > STRONG * edge)), most), kept if kept <= most else 0
