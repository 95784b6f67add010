"""Updates without any signal, each breaking one assumption of the noise model, and ways to plant a signal in them."""

import math

import torch

from tests.deltas import generator, noise


def _row_scales(m, spread, seed=5):
    return torch.exp(spread * noise(m, 1, seed))


def _ar1(m, n, correlation=0.5):
    """Rows whose neighbours in one row are correlated."""
    draws = noise(m, n)
    out = draws.clone()
    for column in range(1, n):
        out[:, column] = correlation * out[:, column - 1] + math.sqrt(1 - correlation**2) * draws[:, column]
    return out


def _student(m, n, freedom):
    chi = torch.stack([noise(m, n, 30 + k) for k in range(math.ceil(freedom))]).square().sum(0)
    return noise(m, n) / (chi / math.ceil(freedom)).sqrt()


def _blocks(m, n):
    scale = torch.ones(m, n, dtype=torch.float64)
    scale[: m // 2, : n // 2] = 3
    return noise(m, n) * scale


def _through_bfloat16(m, n, size):
    base = 0.02 * noise(m, n, 9)
    return (base + size * noise(m, n)).bfloat16().double() - base.bfloat16().double()


def _some(m, n, rows=1.0, columns=1.0):
    out = noise(m, n)
    out[int(rows * m) :] = 0
    out[:, int(columns * n) :] = 0
    return out


NOISES = {
    "iid": noise,
    "stored in bfloat16": lambda m, n: _through_bfloat16(m, n, 1e-3),
    "stored in bfloat16, small": lambda m, n: _through_bfloat16(m, n, 2e-5),
    "90 % random zeros": lambda m, n: noise(m, n) * (torch.rand(m, n, generator=generator(3)) < 0.1),
    "int8-like steps": lambda m, n: (20 * noise(m, n)).round() / 20,
    "uniform": lambda m, n: torch.rand(m, n, generator=generator(3), dtype=torch.float64) - 0.5,
    "signs": lambda m, n: noise(m, n).sign(),
    "rows log-normal .5": lambda m, n: noise(m, n) * _row_scales(m, 0.5),
    "rows log-normal 1": lambda m, n: noise(m, n) * _row_scales(m, 1.0),
    "columns log-normal .2": lambda m, n: noise(m, n) * _row_scales(n, 0.2).T,
    "columns log-normal .5": lambda m, n: noise(m, n) * _row_scales(n, 0.5).T,
    "blocks of two sizes": _blocks,
    "one loud row": lambda m, n: noise(m, n) * (1 + 20 * (torch.arange(m) == 7))[:, None],
    "half the rows zero": lambda m, n: _some(m, n, rows=0.5),
    "60 % of the columns zero": lambda m, n: _some(m, n, columns=0.4),
    "a few rows of an embedding": lambda m, n: _some(8 * m, n, rows=0.05),
    "neighbours correlated .5": _ar1,
    "every row twice": lambda m, n: noise(m // 2, n).repeat_interleave(2, dim=0),
    "Student t, 3": lambda m, n: _student(m, n, 3),
    "Student t, 2": lambda m, n: _student(m, n, 2),
}
"""Each takes rows and columns and returns float64 noise."""


def planted(delta, count=4, strength=3.0):
    """Noise with `count` directions of `strength` times its largest singular value on its live entries, and these."""
    m, n = delta.shape
    left, right = noise(m, count, 41), noise(n, count, 42)
    left[(delta == 0).all(dim=1)] = 0
    right[(delta == 0).all(dim=0)] = 0
    left, right = torch.linalg.qr(left).Q, torch.linalg.qr(right).Q
    values = strength * torch.linalg.matrix_norm(delta, ord=2) * torch.linspace(1, 1.5, count, dtype=torch.float64)
    return delta + (left * values) @ right.T, left
