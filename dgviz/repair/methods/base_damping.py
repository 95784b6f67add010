"""Damping along base's right singular space: what an update does to the directions that base uses most, weakened."""

from typing import Any

import numpy as np

from dgviz.repair.methods.method import TENTHS, Edit, EntryMethod, Params, Strength, Update, number
from dgviz.repair.methods.rows import by_rows


class BaseDamping(EntryMethod):
    """A projection out of base's leading right singular vectors, whole or in part, after training.

    Right is as the matrix is stored: the inputs of a linear layer, the outputs of GPT-2's.
    """

    name = "base_damping"
    group = "Directions"
    decomposes = True
    title = "Base-space damping"
    formula = (
        "W0 + D (I - damping V V^T), V the fewest leading right singular vectors of W0 that hold the share energy "
        "of |W0|^2"
    )
    citation = "own; the right half of the projection that OPLoRA trains with, Xiong & Xie 2025, arXiv 2510.13003"
    parameters = (
        number("damping", 0.5, 1.0, "share taken off along those vectors"),
        number("energy", 0.9, 1.0, "share of base's energy that they hold"),
    )
    strengths = (Strength("damping", TENTHS), Strength("energy", TENTHS))

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return the projection; the vectors of one matrix at a time are in memory."""
        import torch

        damping, known = params["damping"], {}

        def project(matrix: int, base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
            """Return rows of the damped delta."""
            if damping == 0:
                return delta
            if matrix not in known:
                known.clear()
                known[matrix] = _leading(update, matrix, params["energy"])
            right = known[matrix].to(delta.dtype)
            return delta - damping * ((delta @ right.T) @ right)

        return by_rows(update, project)


def _leading(update: Update, matrix: int, energy: float) -> "Any":
    """Return the leading right singular vectors of one of base's matrices, as rows."""
    from dgviz.spectra.svd.decompose import decompose

    found = decompose(update.base_matrix(matrix), name=f"base of {update.name}")
    squares = np.asarray(found.s, dtype=np.float64) ** 2
    below = np.cumsum(squares) < energy * squares.sum() * (1 - 1e-12)
    count = min(int(np.count_nonzero(below)) + 1, int(np.count_nonzero(squares))) if energy > 0 else 0
    return found.triplets(count)[1]
