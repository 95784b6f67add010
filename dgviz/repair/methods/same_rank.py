"""Controls of DG-Hard's rank: as many directions of every matrix, but not the strongest.

Chosen among the directions above rounding level, so that where DG-Hard keeps everything these do too.
"""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from dgviz.repair.methods.method import TAU, MatrixMethod, Params, Values, present
from dgviz.repair.methods.seeds import SEED, begin_stream


class _SameRank(MatrixMethod):
    """A method that keeps k directions as they are, k of D*."""

    strengths = (TAU,)
    thresholded = has_factors = control = True

    @abstractmethod
    def pick(self, params: Params, count: int, k: int, tensor: str) -> NDArray[np.int64]:
        """Return the places of k of so many directions, the strongest being 0."""

    def choose(self, params: Params, s: Values, kept: Values, tensor: str) -> Values:
        """Return the values of the directions picked."""
        there, k = present(s, s), present(kept, s).size
        if k == there.size:
            return kept
        values, at = np.zeros_like(s), there[self.pick(params, there.size, k, tensor)]
        values[at] = s[at]
        return values

    def values(self, params: Params, s: Values, kept: Values) -> Values:
        """Return the values of what is kept."""
        return kept


class RandomK(_SameRank):
    """The first k of a random order, which the seed and the tensor's name begin: a larger k adds to a smaller."""

    name = "random_k"
    title = "Control: random directions"
    formula = "W0 + k directions of D drawn at random, as many as DG-Hard keeps"
    citation = "control"
    parameters = (SEED,)

    def pick(self, params: Params, count: int, k: int, tensor: str) -> NDArray[np.int64]:
        """Return k random places."""
        return np.random.Generator(begin_stream(params, tensor)).permutation(count)[:k]


class BottomK(_SameRank):
    """The weakest directions."""

    name = "bottom_k"
    title = "Control: the weakest directions"
    formula = "W0 + the k weakest directions of D, as many as DG-Hard keeps"
    citation = "control"

    def pick(self, params: Params, count: int, k: int, tensor: str) -> NDArray[np.int64]:
        """Return the last k places."""
        return np.arange(count - k, count)
