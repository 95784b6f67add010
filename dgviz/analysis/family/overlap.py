"""How much two updates of one weight have in common: the overlap of their kept directions, against chance.

Two subspaces of k1 and k2 dimensions in m share ``|U1' U2|_F^2 / min(k1, k2)``, U1 and U2 being orthonormal bases:
1 where the smaller lies in the larger, 0 where they are orthogonal. It is not 0 by chance: two subspaces drawn at
random share ``max(k1, k2) / m`` on average, so an overlap is worth what it has beyond that.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from dgviz.analysis.family.match import SharedWeight
from dgviz.analysis.groups import THIRDS, collect
from dgviz.checkpoint.module_path import CLASSES, layer_order


@dataclass(frozen=True)
class SideOverlap:
    """The overlap of two subspaces on one side of a weight.

    Attributes
    ----------
    value : float
        ``|U1' U2|_F^2 / min(k1, k2)``, from 0 to 1.
    chance : float
        Its mean for random subspaces of the same dimensions.
    spread : float
        Its standard deviation for random subspaces of the same dimensions.
    """

    value: float
    chance: float
    spread: float


@dataclass(frozen=True)
class Overlap:
    """What two updates D1 and D2 of one weight have in common.

    Attributes
    ----------
    ranks : (int, int)
        Directions kept of each.
    left, right : SideOverlap or None
        Of the column spaces (what the weight writes) and the row spaces (what it reads) of D1* and D2*; None where
        nothing is kept of one of them.
    kept_norms, norms : (float, float)
        Frobenius norms of D1* and D2*, and of D1 and D2.
    kept_cosine, cosine : float or None
        ``<D1*, D2*> / (|D1*| |D2*|)`` and ``<D1, D2> / (|D1| |D2|)``; None where one of them is zero.
    """

    ranks: tuple[int, int]
    left: SideOverlap | None
    right: SideOverlap | None
    kept_norms: tuple[float, float]
    norms: tuple[float, float]
    kept_cosine: float | None
    cosine: float | None


def chance_overlap(ranks: Sequence[int], lengths: Sequence[int], common: int) -> tuple[float, float]:
    """Return mean and standard deviation of the overlap of two random subspaces.

    Where rows or columns of an update are zero throughout, its subspace lies in the others: so does the random one it
    is compared with.

    ``E[U1 U1'] = (k1 / a) I`` on the coordinates of the first, so ``E |U1' U2|_F^2 = k1 k2 c / (a b)``. The variance
    is that of ``tr(P Q)`` for a fixed projection P and a random one Q of M dimensions (second moments of the Haar
    measure: Collins & Sniady 2006, doi 10.1007/s00220-006-1554-3); exact where a = b = c.
    """
    if common == 0:
        return 0.0, 0.0
    k1, k2 = ranks
    size = lengths[0] * lengths[1] / common
    if size <= 1:
        return 1.0, 0.0
    variance = 2 * k1 * (size - k1) * k2 * (size - k2) / (size**2 * (size - 1) * (size + 2))
    return max(k1, k2) / size, math.sqrt(max(0.0, variance)) / min(k1, k2)


@dataclass(frozen=True)
class MeanOverlap:
    """Overlaps of many weights, averaged.

    Attributes
    ----------
    weights : int
        How many there are.
    compared : int
        Of how many both updates keep a direction; the averages of `left` and `right` are over these, each once.
    left, right : SideOverlap or None
        Mean, mean by chance, and the standard deviation of that mean.
    kept_cosine, cosine : float or None
        Of the updates of all the weights put together as two long vectors: kept parts, and whole.
    """

    weights: int
    compared: int
    left: SideOverlap | None
    right: SideOverlap | None
    kept_cosine: float | None
    cosine: float | None


def mean_overlap(overlaps: Iterable[Overlap]) -> MeanOverlap:
    """Return the average over weights."""
    every = list(overlaps)
    both = [item for item in every if item.left is not None and item.right is not None]
    return MeanOverlap(
        len(every),
        len(both),
        _mean([item.left for item in both]),
        _mean([item.right for item in both]),
        _joint([(item.kept_cosine, item.kept_norms) for item in every]),
        _joint([(item.cosine, item.norms) for item in every]),
    )


def _mean(sides: Sequence[SideOverlap]) -> SideOverlap | None:
    """Return the mean of one side over weights."""
    if not sides:
        return None
    value, chance = fmean(side.value for side in sides), fmean(side.chance for side in sides)
    return SideOverlap(value, chance, math.sqrt(math.fsum(side.spread**2 for side in sides)) / len(sides))


def _joint(parts: Sequence[tuple[float | None, tuple[float, float]]]) -> float | None:
    """Return the cosine of two vectors from those of their parts and the parts' lengths."""
    unit = max((length for _, lengths in parts for length in lengths), default=0.0)
    if unit == 0:
        return None
    scaled = [(cosine, one / unit, other / unit) for cosine, (one, other) in parts]
    inner = math.fsum(cosine * one * other for cosine, one, other in scaled if cosine is not None)
    squares = [math.fsum(row[side] ** 2 for row in scaled) for side in (1, 2)]
    return inner / math.sqrt(squares[0] * squares[1]) if min(squares) > 0 else None


@dataclass(frozen=True)
class ComparedWeight:
    """One weight, compared between every two of its updates.

    Attributes
    ----------
    weight : SharedWeight
        Which one.
    ranks : tuple of int or None
        Directions kept, per model; None where it has no update or could not be read.
    overlaps : mapping of (int, int) to Overlap
        By the positions of two models, the smaller first.
    errors : mapping of int to str
        What befell the models that could not be read.
    """

    weight: SharedWeight
    ranks: tuple[int | None, ...]
    overlaps: dict[tuple[int, int], Overlap]
    errors: dict[int, str]


def kinship_report(compared: Sequence[ComparedWeight]) -> dict[str, Any]:
    """Return the comparison of several models as plain values."""
    pairs = sorted({pair for item in compared for pair in item.overlaps})
    by_pair = []
    for pair in pairs:
        own = [(item.weight, item.overlaps[pair]) for item in compared if pair in item.overlaps]
        paths = [(weight.module_path, overlap) for weight, overlap in own]
        classes = collect(((path.kind, overlap) for path, overlap in paths), CLASSES)
        thirds = collect(((weight.third, overlap) for weight, overlap in own), THIRDS)
        layers = collect(((path.tower, path.layer), overlap) for path, overlap in paths if path.layer)
        by_pair.append(
            {
                "models": list(pair),
                "all": _mean_values(overlap for _, overlap in own),
                "classes": [{"group": name} | _mean_values(members) for name, members in classes.items()],
                "thirds": [{"group": name} | _mean_values(members) for name, members in thirds.items()],
                "layers": [
                    {"tower": at[0], "layer": ".".join(map(str, at[1]))} | _mean_values(layers[at])
                    for at in sorted(layers, key=lambda at: (at[0], layer_order(at[1])))
                ],
            }
        )
    rows = [
        {
            "name": item.weight.name,
            "class": item.weight.module_path.kind,
            "tower": item.weight.module_path.tower,
            "layer": item.weight.module_path.level,
            "ranks": list(item.ranks),
            "overlaps": [{"models": list(pair), **asdict(own)} for pair, own in sorted(item.overlaps.items())],
        }
        for item in compared
    ]
    return {"overlap": by_pair, "weights": rows}


def _mean_values(overlaps: Iterable[Overlap]) -> dict[str, Any]:
    return asdict(mean_overlap(overlaps))
