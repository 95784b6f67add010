"""Direction maps of the bulk by a sketch: what neighbouring directions do to the rows, instead of each one alone.

In the bulk a direction is hardly defined: noise as small as rounding turns it into its neighbours. What is defined is
how much of the rows' energy a neighbourhood of directions has. The kernel polynomial method (Weisse, Wellein,
Alvermann & Fehske 2006, Rev. Mod. Phys. 78) finds it from products of the Gram matrix with a few random vectors: a
Chebyshev series for a peak at one eigenvalue, damped by Jackson's kernel, leaves of them what lies near that value.
A column of the map is then a random vector of its neighbourhood, as long as the direction it stands for.
"""

from itertools import pairwise

import numpy as np
import torch

from dgviz.device import send
from dgviz.spectra.svd.gram import mirrored
from dgviz.spectra.svd.products import times
from dgviz.spectra.svd.solve import Solution

BANDS, WIDTH = 16, 16
"""Neighbourhoods that the bulk is parted into, and random vectors for each: its energy in a row is known to 30 %."""
_DEGREE = 40
_BELOW = 0.03  # of the mean eigenvalue: what was taken out lies a hundredth below zero
_AT_ONCE = 8  # neighbourhoods
_CHUNK = 2**22  # entries of columns alive at once


def sketched_directions(
    tall: torch.Tensor, solution: Solution, vectors: torch.Tensor, wide: bool, edges: list[int]
) -> torch.Tensor:
    """Return the map of the directions that come after `vectors`, rows pooled by maximum between `edges`."""
    values = solution.values[vectors.shape[1] :]
    bands, of_band = _near(mirrored(solution.gram), values, vectors.to(solution.gram.dtype))
    generator = torch.Generator().manual_seed(0)
    chosen = send(torch.randn(WIDTH, values.numel(), generator=generator), tall.device)
    out = tall.new_zeros(len(edges) - 1, values.numel())
    for number in range(BANDS):
        if number % _AT_ONCE == 0:  # wide products run faster, and take more memory
            block = bands[number : number + _AT_ONCE].reshape(-1, tall.shape[1]).T.to(tall.dtype)
            block = block if wide else times(tall, block)
        first = number % _AT_ONCE * WIDTH
        band, own = block[:, first : first + WIDTH], of_band == number
        mixed = chosen[:, own].to(tall.dtype)
        lengths = (mixed * (band.T @ band @ mixed)).sum(dim=0).clamp_min(0).sqrt()
        mixed *= torch.where(lengths > 0, send(values[own].to(tall.dtype), tall.device) / lengths, 0)
        out[:, own] = _pooled(band, mixed, edges)
    return out


def _near(gram: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `WIDTH` random vectors of every neighbourhood as rows, and which one each direction belongs to."""
    p, device = gram.shape[0], gram.device
    squares = values.square()
    low, high = -_BELOW * float(squares.mean()), 1.02 * float(squares[0])
    band = torch.arange(values.numel()) * BANDS // values.numel()
    centres = torch.stack([squares[band == number].median() for number in range(BANDS)])
    places = ((2 * centres - low - high) / (high - low)).numpy()
    degrees = np.arange(_DEGREE)
    series = np.cos(degrees * np.arccos(places)[:, None]) * _jackson(_DEGREE) * np.where(degrees, 2.0, 1.0)
    coefficients = send(torch.from_numpy(series).to(gram.dtype), device)
    generator = torch.Generator().manual_seed(1)
    x = send(torch.randn(WIDTH, p, generator=generator), device).to(gram.dtype)
    x -= (x @ vectors) @ vectors.T
    alpha, beta = 2 / (high - low), -(high + low) / (high - low)
    taken = vectors * (-alpha * (vectors * (gram @ vectors)).sum(dim=0))  # else these would lie beyond the series

    def shifted(x: torch.Tensor) -> torch.Tensor:
        """Return the Gram matrix of the bulk, its eigenvalues brought to -1 to 1, times a block."""
        return torch.addmm(x, x, gram, beta=beta, alpha=alpha).addmm_(x @ vectors, taken.T)

    before, now = x, shifted(x)
    found = coefficients[:, 0, None, None] * before + coefficients[:, 1, None, None] * now
    for degree in range(2, _DEGREE):
        before, now = now, shifted(now).mul_(2).sub_(before)
        found.add_(coefficients[:, degree, None, None] * now)
    return found - (found @ vectors) @ vectors.T, band


def _jackson(count: int) -> np.ndarray:
    """Return Jackson's damping of a Chebyshev series, which keeps it from ringing."""
    k, n = np.arange(count), count + 1
    return ((n - k) * np.cos(np.pi * k / n) + np.sin(np.pi * k / n) / np.tan(np.pi / n)) / n


def _pooled(left: torch.Tensor, right: torch.Tensor, edges: list[int]) -> torch.Tensor:
    """Return ``|left @ right|``, rows pooled by maximum, a run of row blocks at a time."""
    blocks = len(edges) - 1
    step = max(1, _CHUNK * blocks // (edges[-1] * max(1, right.shape[1])))
    rows = []
    for first in range(0, blocks, step):
        inner = edges[first : first + step + 1]
        product = (left[inner[0] : inner[-1]] @ right).abs_()
        rows += [product[a - inner[0] : b - inner[0]].amax(dim=0) for a, b in pairwise(inner)]
    return torch.stack(rows)
