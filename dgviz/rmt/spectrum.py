"""All singular values of one weight's update, and how they were obtained."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Trimmed:
    """A spectrum without the rows and columns of its delta that are zero throughout.

    They change no singular value but those that are zero, yet a noise estimate from the full shape is wrong: the
    Marchenko-Pastur law of a matrix is that of its live part. Rules and noise figures take `live_s` and `live_shape`.
    """

    s: NDArray[np.float64]
    shape: tuple[int, int]
    summary: dict[str, Any]

    @property
    def live_shape(self) -> tuple[int, int]:
        """Rows and columns that hold a nonzero entry; the full shape of a delta that is zero, or not measured."""
        live = self.summary.get("live_rows"), self.summary.get("live_columns")
        return live if live[0] and live[1] else tuple(self.shape)

    @property
    def live_s(self) -> NDArray[np.float64]:
        """The first ``min(live_shape)`` singular values, the spectrum of the live part."""
        return self.s[: min(self.live_shape)]


@dataclass(frozen=True)
class StoredSpectrum(_Trimmed):
    """What the store keeps of one delta.

    Attributes
    ----------
    s : ndarray of float64, shape (min(m, n),)
        All singular values, descending.
    shape : tuple of int
        (m, n) of the delta.
    certificate : dict
        How the values were obtained, as JSON.
    summary : dict
        Figures of the delta's entries, as JSON (`describe_entries`); empty where nobody computed them.
    """

    s: NDArray[np.float64]
    shape: tuple[int, int]
    certificate: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spectrum(_Trimmed):
    """All singular values of one weight's update, and how they were obtained.

    Attributes
    ----------
    name : str
        Tensor, with ``[i]`` for one matrix of a stack.
    shape : (int, int)
        Rows and columns.
    s : (p,) float64 array
        Descending.
    certificate : dict
        Route and checks, as plain JSON values.
    stored : bool
        True when they came from the store.
    seconds : float
        Time it took to get them now.
    warnings : tuple of str
        What went wrong beside the numbers, such as a store that cannot be written.
    summary : dict
        Figures of the delta's entries, empty where nobody computed them.
    """

    name: str
    shape: tuple[int, int]
    s: NDArray[np.float64]
    certificate: dict[str, Any]
    stored: bool
    seconds: float
    warnings: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
