"""Weight updates with known structure, float64, for the tests of the engine and its bench."""

import math
from dataclasses import dataclass

import torch

from dgviz.rmt.law import aspect_ratio, svht_coef

EPS = 2.0**-23  # float32's


def generator(seed):
    return torch.Generator().manual_seed(seed)


def noise(m, n, seed=0):
    return torch.randn(m, n, generator=generator(seed), dtype=torch.float64)


def orthonormal(m, k, seed):
    return torch.linalg.qr(noise(m, k, seed)).Q


def edge(m, n):
    """Bulk edge of unit noise."""
    return math.sqrt(m) + math.sqrt(n)


def with_values(m, n, values, seed=0):
    values = torch.as_tensor(values, dtype=torch.float64)
    k = values.numel()
    return (orthonormal(m, k, seed + 1) * values) @ orthonormal(n, k, seed + 2).T


def spiked(m, n, count, strongest, seed=0, weakest=1.6):
    """Unit noise and `count` spikes, geometrically spaced between `weakest` and `strongest` times its edge."""
    count = min(count, min(m, n) // 2)
    steps = torch.linspace(0, 1, max(count, 2), dtype=torch.float64)[:count]
    return noise(m, n, seed) + with_values(m, n, edge(m, n) * weakest * (strongest / weakest) ** steps, seed)


def power_law(m, n, exponent):
    return with_values(m, n, torch.arange(1, min(m, n) + 1, dtype=torch.float64) ** -exponent)


def through(dtype, m, n, update, seed=9):
    """The update as two checkpoints of `dtype` hold it: rounded with weights a hundred times larger."""
    base = 0.02 * noise(m, n, seed)
    return (base + update).to(dtype).double() - base.to(dtype).double()


def low_rank(m, n, rank=16):
    return 1e-3 * noise(m, rank, 3) @ noise(rank, n, 4)


def first_rows(matrix, count):
    matrix[count:] = 0
    return matrix


def near_threshold(m, n):
    """Six equal spikes that come out a little above the threshold, among others."""
    values = torch.tensor([1.25] * 6 + [2.0, 3.0, 5.0, 9.0], dtype=torch.float64)[: min(m, n) // 2]
    return noise(m, n) + with_values(m, n, values * edge(m, n))


FAMILIES = {
    "pure noise": noise,
    "5 spikes to 12": lambda m, n: spiked(m, n, 5, 12),
    "30 spikes to 12": lambda m, n: spiked(m, n, 30, 12),
    "100 spikes to 12": lambda m, n: spiked(m, n, 100, 12),
    "300 spikes to 12": lambda m, n: spiked(m, n, 300, 12),
    "5 spikes to 1e3": lambda m, n: spiked(m, n, 5, 1e3),
    "30 spikes to 1e3": lambda m, n: spiked(m, n, 30, 1e3),
    "100 spikes to 1e3": lambda m, n: spiked(m, n, 100, 1e3),
    "300 spikes to 1e3": lambda m, n: spiked(m, n, 300, 1e3),
    "30 spikes to 1e4": lambda m, n: spiked(m, n, 30, 1e4),
    "30 spikes to 1e5": lambda m, n: spiked(m, n, 30, 1e5),
    "30 spikes to 1e6": lambda m, n: spiked(m, n, 30, 1e6),
    "one spike of 1e6": lambda m, n: spiked(m, n, 1, 1e6, weakest=1e6),
    "40 equal spikes of 1e6": lambda m, n: spiked(m, n, 40, 1e6, weakest=1e6),
    "power law 1/2": lambda m, n: power_law(m, n, 0.5),
    "power law 1": lambda m, n: power_law(m, n, 1.0),
    "power law 2": lambda m, n: power_law(m, n, 2.0),
    "uneven columns": lambda m, n: noise(m, n) * torch.exp(0.5 * noise(1, n, 6)),
    "uneven rows and spikes": lambda m, n: noise(m, n) * torch.exp(0.5 * noise(m, 1, 6)) + spiked(m, n, 30, 100) / 3,
    "through bfloat16": lambda m, n: through(torch.bfloat16, m, n, 1e-4 * spiked(m, n, 30, 50)),
    "through float32": lambda m, n: through(torch.float32, m, n, 1e-4 * spiked(m, n, 30, 50)),
    "LoRA": low_rank,
    "LoRA through float32": lambda m, n: through(torch.float32, m, n, low_rank(m, n)),
    "LoRA through bfloat16": lambda m, n: through(torch.bfloat16, m, n, low_rank(m, n)),
    "whole-number LoRA": lambda m, n: noise(m, 16, 1).round() @ noise(16, n, 2).round(),
    "one row": lambda m, n: first_rows(noise(m, n), 1),
    "half the rows zero": lambda m, n: first_rows(noise(m, n), max(1, m // 2)),
    "two thirds of the columns zero": lambda m, n: first_rows(noise(n, m), max(1, n // 3)).T,
    "equal values near tau": near_threshold,
    "of size 1e-30": lambda m, n: 1e-30 * spiked(m, n, 30, 12),
    "of size 1e30": lambda m, n: 1e30 * spiked(m, n, 30, 12),
    "zero": lambda m, n: torch.zeros(m, n, dtype=torch.float64),
}


@dataclass(frozen=True)
class Comparison:
    """A decomposition against the float64 SVD of the same delta, at Gavish and Donoho's threshold.

    Where the median is below what float32 entries resolve, tau is undefined (every rule says so): ``tau_error`` is
    None and the ranks are numerical ranks, the number of values above 64 eps s_1.
    """

    rank: int
    expected_rank: int
    nearest: float  # |s / tau - 1| of the value nearest to tau
    tau_error: float | None  # |dtau| / tau
    value_error: float  # largest |ds| / s_1
    repaired_error: float  # |dD*| / |D*| at the expected rank

    @property
    def same_rank(self):
        return self.rank == self.expected_rank or self.nearest <= 1e-5


def compare(delta, found):
    # In units of a power of two near the largest entry, so that squares stay within float64's range.
    unit = 2.0 ** math.frexp(float(delta.abs().max()) or 1.0)[1]
    u, s, vh = torch.linalg.svd(delta.double() / unit, full_matrices=False)
    values, (m, n) = found.s / unit, delta.shape
    p = s.numel()
    median, reached = (float(x[(p - 1) // 2] + x[p // 2]) / 2 for x in (s, values))
    if float(s[p // 2]) <= 64 * EPS * float(s[0]):
        level = level_reached = 64 * EPS * float(s[0])
        tau_error, nearest = None, math.inf
    else:
        coefficient = svht_coef(aspect_ratio((m, n)))
        level, level_reached = coefficient * median, coefficient * reached
        tau_error, nearest = abs(reached / median - 1), float((s / level - 1).abs().min())
    expected, rank = int((s > level).sum()), int((values > level_reached).sum())
    left, right = found.triplets(expected)
    best = (u[:, :expected] * s[:expected]) @ vh[:expected]
    difference = float(torch.linalg.norm(left.cpu().double() / unit @ right.cpu().double() - best))
    repaired_error = difference / float(torch.linalg.norm(best)) if expected else difference
    value_error = float((values - s).abs().max() / s[0]) if float(s[0]) else float(values.abs().max())
    return Comparison(rank, expected, nearest, tau_error, value_error, repaired_error)
