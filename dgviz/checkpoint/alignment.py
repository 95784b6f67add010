"""Names that agree apart from the modules around them: wrappers of any name, and a tower inside a larger model.

No list of wrappers is complete, so names are aligned by what they share: components that only one side has are left
out, and then whole subtrees are laid upon each other where what lies below one lies below the other.
A subtree counts only where its weights correlate too, and where no other fits as well.
"""

from collections.abc import Iterator, Mapping

from dgviz.checkpoint.descent import measure_descent
from dgviz.checkpoint.sample import TENSOR_BYTES
from dgviz.checkpoint.types import TensorInfo

Tensors = Mapping[str, TensorInfo]
_LOOKED_AT = 5  # matrices of a subtree whose entries are compared
_SURE = 0.3  # correlation that shows two weights to be one: an update three times as large as the weights leaves it
_MOST_LEFT = 0.1  # share of the smaller subtree that may have no like


def align_names(tuned: Tensors, base: Tensors) -> dict[str, str]:
    """Return base's name for tensors of tuned that lie at the same place under other modules."""
    short_tuned, short_base = _without_own(tuned, base), _without_own(base, tuned)
    found: dict[str, str] = {}
    while True:
        left_tuned = {short: name for short, name in short_tuned.items() if name not in found}
        left_base = {short: name for short, name in short_base.items() if name not in found.values()}
        new = _largest(left_tuned, left_base, tuned, base)
        if not new:
            return found
        found |= new


def _without_own(names: Tensors, others: Tensors) -> dict[str, str]:
    """Return every name by what is left of it without components that no name of the other side has."""
    known = {part for name in others for part in name.split(".")}
    short = {".".join(part for part in name.split(".") if part in known or part.isdecimal()): name for name in names}
    return short if len(short) == len(names) and "" not in short else {name: name for name in names}


def _largest(
    left_tuned: Mapping[str, str], left_base: Mapping[str, str], tuned: Tensors, base: Tensors
) -> dict[str, str]:
    """Return the matches of the two subtrees that have most names in common, if no others fit as well."""
    candidates: dict[tuple[str, str], dict[str, str]] = {}
    by_end: dict[str, list[str]] = {}
    for short in left_base:
        for end in _ends(short):
            by_end.setdefault(end, []).append(short)
    for short, name in left_tuned.items():
        for other in next((by_end[end] for end in _ends(short) if end in by_end), ()):
            if _alike(tuned[name], base[left_base[other]]):
                at = _shared(short, other)
                roots = short[: len(short) - at], other[: len(other) - at]
                candidates.setdefault(roots, {})[name] = left_base[other]
    for roots, own in candidates.items():
        sides = zip(roots, (left_tuned, left_base), strict=True)
        smaller = min(sum(short.startswith(root) for short in left) for root, left in sides)
        if len(own) < (1 - _MOST_LEFT) * smaller:
            candidates[roots] = {}
    fitting = sorted(candidates.values(), key=len, reverse=True)
    proven = [own for own in fitting[:4] if own and _correlated(own, tuned, base)]
    if not proven:
        return {}
    best = proven[0]
    rivals = [own for own in proven[1:] if len(own) == len(best)]
    if any(own.keys() & best.keys() or set(own.values()) & set(best.values()) for own in rivals):
        return {}  # a teacher beside its student, say
    return best


def _ends(name: str) -> Iterator[str]:
    """Yield a name and what is left of it without its first component, its first two, ..."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _shared(first: str, second: str) -> int:
    """Return the length of the longest end that two names share, of whole components."""
    others = set(_ends(second))
    return next(len(end) for end in _ends(first) if end in others)


def _alike(first: TensorInfo, second: TensorInfo) -> bool:
    """Say whether two tensors may be one, a vocabulary grown perhaps."""
    return first.shape[1:] == second.shape[1:] and len(first.shape) == len(second.shape)


def _correlated(matches: Mapping[str, str], tuned: Tensors, base: Tensors) -> bool:
    """Say whether most of some weights that would be matched correlate; what has no matrix proves nothing."""
    both = ((base[other], tuned[name]) for name, other in matches.items())
    matrices = sorted(
        (pair for pair in both if len(pair[0].shape) > 1 and pair[0].shape == pair[1].shape and pair[0].numel > 1),
        key=lambda pair: -pair[0].numel,
    )[:_LOOKED_AT]
    found = [measure_descent(*pair, TENSOR_BYTES // 8) for pair in matrices if all(side.is_floating for side in pair)]
    known = [item.correlation >= _SURE or bool(item.permutation) for item in found if item is not None]
    return bool(known) and sum(known) > len(known) / 2
