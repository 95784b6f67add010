"""Which weights of several tuned checkpoints belong together, and which cannot be compared."""

from collections.abc import Sequence
from dataclasses import dataclass

from dgviz.analysis.groups import thirds_of
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.fingerprint import sample_contents
from dgviz.checkpoint.layout import label
from dgviz.checkpoint.module_path import ModulePath, module_path
from dgviz.errors import PairError
from dgviz.spectra.weight import Weight, weights_of


@dataclass(frozen=True, eq=False)
class SharedWeight:
    """One matrix of base and its counterparts.

    Attributes
    ----------
    name : str
        Of the tensor in base, with the matrix of a stack in brackets.
    module_path : ModulePath
        Where it belongs in base.
    third : str
        Its third of the depth, one of `dgviz.analysis.groups.THIRDS`.
    sides : tuple of Weight or None
        Per tuned checkpoint, in order; None where it has no update of this matrix to compare.
    """

    name: str
    module_path: ModulePath
    third: str
    sides: tuple[Weight | None, ...]


@dataclass(frozen=True)
class Apart:
    """A weight that not all tuned checkpoints can be compared on.

    Attributes
    ----------
    weight : str
        Its name in base.
    models : tuple of int
        Positions of the tuned checkpoints that are left out.
    reason : str
        Why, in a sentence.
    """

    weight: str
    models: tuple[int, ...]
    reason: str


def match_members(pairs: Sequence[CheckpointPair]) -> tuple[list[SharedWeight], list[Apart]]:
    """Return the matrices of base that at least two tuned checkpoints update, and every one that some do not.

    Weights belong together by the tensor of base that each is paired with, whatever their names in tuned.

    Parameters
    ----------
    pairs : sequence of CheckpointPair
        One base, several tuned checkpoints.

    Raises
    ------
    PairError
        If the pairs do not have one base.
    """
    bases = {pair.base.fingerprint: pair.base for pair in pairs}
    if len(bases) != 1 and len(set(map(sample_contents, bases.values()))) != 1:  # copies are one
        named = ", ".join(str(base.path) for base in bases.values())
        raise PairError(f"a family has one base; got {named}: give one base for all")
    sides: dict[tuple[str, int | None], list[Weight | None]] = {}
    for position, pair in enumerate(pairs):
        for weight in weights_of(pair):
            key = weight.tensor.base.name, weight.index
            sides.setdefault(key, [None] * len(pairs))[position] = weight
    apart: dict[tuple[str, str], set[int]] = {}
    for (name, _), own in sides.items():
        first = next(weight for weight in own if weight is not None)
        for position, weight in enumerate(own):
            if weight is None:
                reason = _why_not(pairs[position], name)
            elif weight.tensor.base != first.tensor.base:
                reason = f"It has other rows of base's tensor than the first: {weight.tensor.reason}"
                own[position] = None
            else:
                continue
            apart.setdefault((name, reason), set()).add(position)
    shared = {key: own for key, own in sides.items() if sum(weight is not None for weight in own) > 1}
    places = [module_path(name) for name, _ in shared]
    matched = [
        SharedWeight(label(name, index), place, third, tuple(own))
        for ((name, index), own), place, third in zip(shared.items(), places, thirds_of(places), strict=True)
    ]
    return matched, [Apart(name, tuple(sorted(models)), reason) for (name, reason), models in apart.items()]


def _why_not(pair: CheckpointPair, name: str) -> str:
    """Return why a tuned checkpoint has no update of a tensor of base."""
    found = next((row for row in pair.tensors if row.base is not None and row.base.name == name), None)
    return "It has no tensor that belongs to it." if found is None else found.reason


def distinct_names(names: Sequence[str], given: str | None = None) -> list[str]:
    """Return what tuned checkpoints are called: as given, or by their folders, numbered where two are called alike.

    Parameters
    ----------
    names : sequence of str
        Of their folders.
    given : str, optional
        Names with commas between, one per checkpoint.

    Raises
    ------
    PairError
        If the given names are not as many as the checkpoints, or one is empty or given twice.
    """
    if given is not None:
        chosen = [name.strip() for name in given.split(",")]
        if len(chosen) != len(names):
            raise PairError(f"--names has {len(chosen)} names for {len(names)} tuned checkpoints: give one for each")
        if len(set(chosen)) < len(chosen) or "" in chosen:
            raise PairError(f"--names {given!r} has an empty name or one twice: give each checkpoint its own")
        return chosen
    found: list[str] = []
    for name in names:
        numbered = (f"{name} ({number})" for number in range(2, len(names) + 2))
        found.append(name if name not in found else next(item for item in numbered if item not in found))
    return found
