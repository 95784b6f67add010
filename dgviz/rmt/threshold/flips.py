"""Sign flips: how large the first singular value of noise with this delta's own variance profile would be."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8  # of taking out what was found; two or three are usual
_MOST = 0.25  # share of the directions that may be taken out: beyond it the bulk itself is eaten
_TOLERANCE = 1e-3  # of a flipped matrix's norm; between two flips it differs by more


def flip_tau(delta: Any, s: NDArray[np.float64], trials: int, seed: int) -> float:
    """Return the largest first singular value of the delta under random signs (Hong, Sheng & Dobriban 2020).

    Independent random signs leave the size of every entry as it is, and so the variance of every row and column, but
    destroy what entries have in common. Strong directions leave their size behind and would raise the level, so those
    found are taken out of the delta and the rest is flipped again, until nothing more is found. Where entries depend
    on each other the flipped level falls with all that is taken out, and nothing of the bulk would stay: the search
    ends at the level where more than a quarter of the directions lie above it, which `unsettled` tells from the rank.
    """
    array = delta.cpu().numpy() if hasattr(delta, "cpu") else np.asarray(delta)
    unit = float(s[0])
    if unit == 0:
        return 0.0
    tall = array if array.shape[0] >= array.shape[1] else array.T
    tall = np.ascontiguousarray(tall, dtype=np.float32) / np.float32(unit)
    generator = np.random.default_rng(seed)
    directions: NDArray[np.float64] | None = None
    rest, kept = tall, 0
    for _ in range(_ROUNDS):
        tau = unit * max(_flipped_norm(rest, generator) for _ in range(trials))
        found = int(np.count_nonzero(s > tau))
        if found <= kept:
            break
        if directions is None:
            directions = _right_directions(tall)
        kept = found
        if unsettled(kept, s.size):
            break
        strong = directions[:, :kept].astype(np.float32)
        rest = tall - (tall @ strong) @ strong.T
    return tau


def unsettled(rank: int, count: int) -> bool:
    """Return whether `flip_tau` gave up: more of the directions lie above its level than it takes out."""
    return rank > max(1, _MOST * count)


def _flipped_norm(matrix: NDArray[np.float32], generator: np.random.Generator) -> float:
    """Return the first singular value of a matrix under random signs, by Lanczos iteration."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    bits = np.unpackbits(np.frombuffer(generator.bytes((matrix.size + 7) // 8), np.uint8), count=matrix.size)
    flipped = matrix * (2 * bits.reshape(matrix.shape).astype(np.int8) - 1).astype(np.float32)
    columns = matrix.shape[1]
    if columns < 16:
        return float(np.linalg.norm(flipped, 2))
    gram = LinearOperator((columns, columns), matvec=lambda v: flipped.T @ (flipped @ v), dtype=np.float32)
    start = generator.standard_normal(columns).astype(np.float32)
    largest = eigsh(gram, k=1, tol=_TOLERANCE, v0=start, return_eigenvectors=False)[0]
    return float(max(largest, 0)) ** 0.5


def _right_directions(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the right singular vectors as columns, strongest first."""
    double = matrix.astype(np.float64)
    return np.linalg.eigh(double.T @ double)[1][:, ::-1]
