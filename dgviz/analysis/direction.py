"""One singular direction of an update: what it moves, how it lies to directions of other matrices; numpy only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.floating]
MOVED = 10  # rows and columns that are named
_LEADING_SHARE, _MOST_LEADING = 0.1, 64  # of the directions of a matrix that another's direction is held against


@dataclass(frozen=True)
class Direction:
    """One direction of an update.

    Attributes
    ----------
    number : int
        Its place, the strongest being 1.
    s : float
        Its singular value.
    energy : float
        Its share of the update's squared norm.
    rows, columns : tuple of (int, float)
        Outputs and inputs that it moves most, from 0 on, each with its share of what the direction moves.
    """

    number: int
    s: float
    energy: float
    rows: tuple[tuple[int, float], ...]
    columns: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class SideAlignment:
    """How a unit vector lies to orthonormal ones.

    Attributes
    ----------
    cosine : float
        The largest cosine with one of them, in size.
    nearest : int
        Which one, from 1 on.
    share : float
        Share of its squared length that lies in their span.
    chance_cosine, chance_share : float
        What a random vector usually has: the median of the largest cosine, and the mean share.
    """

    cosine: float
    nearest: int
    share: float
    chance_cosine: float
    chance_share: float


@dataclass(frozen=True)
class Alignment:
    """How a direction lies to the leading ones of another matrix of the same shape.

    Attributes
    ----------
    leading : int
        How many of those are looked at.
    left, right : SideAlignment
        In the space of outputs, u, and in that of inputs, v.
    """

    leading: int
    left: SideAlignment
    right: SideAlignment


def leading_count(shape: tuple[int, int]) -> int:
    """Return how many leading directions of a matrix others are held against: a tenth of them, 64 at most."""
    return max(1, min(_MOST_LEADING, math.floor(_LEADING_SHARE * min(shape))))


def describe_direction(s: _Array, number: int, u: _Array, v: _Array) -> Direction:
    """Return what a direction is and does.

    Parameters
    ----------
    s : (p,) array
        All singular values of the update.
    number : int
        Which direction, the strongest being 1.
    u, v : (m,) and (n,) arrays
        Its singular vectors.
    """
    squares = (s / s[0]) ** 2
    return Direction(
        number, float(s[number - 1]), float(squares[number - 1] / squares.sum()), _most_moved(u), _most_moved(v)
    )


def _most_moved(vector: _Array) -> tuple[tuple[int, float], ...]:
    shares = np.square(vector, dtype=np.float64)
    first = np.argsort(-shares, kind="stable")[:MOVED]
    return tuple((int(i), float(shares[i])) for i in first)


def align(u: _Array, v: _Array, left: _Array, right: _Array) -> Alignment:
    """Return how a direction lies to the leading ones of another matrix.

    Parameters
    ----------
    u, v : (m,) and (n,) arrays
        The direction's singular vectors.
    left, right : (m, k) and (k, n) arrays
        The other matrix's; orthonormal.
    """
    return Alignment(left.shape[1], _side(u, left), _side(v, right.T))


def _side(vector: _Array, basis: _Array) -> SideAlignment:
    length, count = basis.shape
    cosines = np.abs(basis.T.astype(np.float64) @ vector.astype(np.float64))
    # The largest of k cosines of a random vector in n dimensions: those of k independent normals over the root of n.
    usual = NormalDist().inv_cdf((1 + 0.5 ** (1 / count)) / 2) / math.sqrt(length)
    nearest = int(np.argmax(cosines))
    share = min(1.0, float(np.sum(cosines**2)))
    return SideAlignment(float(cosines[nearest]), nearest + 1, share, min(1.0, usual), count / length)


@dataclass(frozen=True)
class Alignments:
    """How a direction lies to base's own directions, and to those of other updates of the weight.

    Attributes
    ----------
    base : Alignment
        To the leading directions of the base weight.
    others : mapping of str to Alignment
        To the leading directions of the same weight's update in other fine-tunes.
    """

    base: Alignment
    others: Mapping[str, Alignment]
