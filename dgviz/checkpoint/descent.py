"""Whether tuned descends from base: what becomes of the weights themselves, tensor by tensor.

Fine-tuning moves weights, and however long it goes on they stay correlated with what they were; two models that were
trained apart have no correlation at all, though every shape agrees. A sample of the entries tells it; where much
depends on the answer, all of them are read.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from dgviz.checkpoint.actions import CAUSES
from dgviz.checkpoint.derived import pick_rows
from dgviz.checkpoint.lora.tensor import LoraStack, LoraTensor
from dgviz.checkpoint.read import SMALL_BYTES, read_ahead
from dgviz.checkpoint.sample import (
    RUN,
    TENSOR_BYTES,
    TOTAL_BYTES,
    iter_values,
    read_runs,
    read_small_runs,
    sampled_runs,
)
from dgviz.checkpoint.types import (
    BLOCKS,
    INFO,
    REPAIR,
    WARNING,
    CheckpointPair,
    Descent,
    Notice,
    PairedTensor,
    TensorInfo,
)
from dgviz.command import option
from dgviz.words import some

UNRELATED = 0.1
"""Correlation below which two tensors have nothing in common: of n independent entries it is off zero by 1 / sqrt(n),
0.03 in the smallest tensor that is repaired. An update as large as the weights themselves leaves 0.7, one three times
as large 0.3."""
MOST_UNRELATED = 0.5
"""Share of the parameters in matrices above which two models do not belong together."""
_DOUBTFUL = 0.3  # sampled correlation below which all entries are read before anything rests on it
_SAME_ROW = 0.5  # correlation of two rows that are one, moved by fine-tuning
_SAME_ROWS = 0.5  # share of the rows looked at that have to be found again: a sample cuts heads apart
_MOST_ROWS = 4096  # compared with each other, where all are
_MOST_AFAR = 2048  # remote tensors looked at
_TOGETHER = 1024  # small tensors compared at once


def judge_descent(
    rows: list[PairedTensor], whole: bool, afar: bool = False
) -> tuple[list[PairedTensor], list[Notice]]:
    """Compare both sides of every tensor to be repaired; return the rows, and what is to be said.

    A tensor that has nothing in common with base's is left as in tuned, unless most of the model is like that: then
    the pair is blocked. `whole`: what a sample throws doubt on is read completely. `afar`: a side is remote, so that
    every place costs a request: one place of each tensor is looked at, and of very many tensors only some.
    """
    most = _share_of_bytes(rows)
    seen = rows
    if afar:
        most, seen = min(most, RUN), _drawn(rows)
    with read_ahead(_pieces(seen, most)) if afar else nullcontext():
        repaired = [row for row in seen if row.action == REPAIR]
        found = {} if afar else _measure_small(repaired, most)
        found |= {row.name: _measure(row, most, whole, afar) for row in repaired if row.name not in found}
        broken = _tell_broken(seen, most, whole)
    rows = [row.compared(found.get(row.name)) for row in rows]
    known = [row for row in rows if row.descent is not None]
    parameters = sum(row.tuned.numel for row in known)
    permuted = [row for row in known if row.descent.permutation]
    strange = [row for row in known if row.descent.correlation < UNRELATED and not row.descent.permutation]
    notices = [*broken, *_tell_unchanged(known), *_tell_drawn(seen, rows)]
    if sum(row.tuned.numel for row in strange) > MOST_UNRELATED * parameters:
        share = sum(row.tuned.numel for row in strange) / parameters
        return rows, [_block_unrelated(strange, share), *notices]
    causes = {row.name: "unrelated" for row in strange} | {row.name: "permuted" for row in permuted}
    kept = [_kept(row, causes[row.name]) if row.name in causes else row for row in rows]
    return kept, [*_tell_unrelated(strange), *_tell_permuted(permuted), *notices]


def bytes_sampled(pair: CheckpointPair, afar: bool) -> int:
    """Return the bytes of a pair's tensors that are looked at when it is opened; see `judge_descent`."""
    rows = list(pair.tensors)
    most, seen = (min(_share_of_bytes(rows), RUN), _drawn(rows)) if afar else (_share_of_bytes(rows), rows)
    return sum(nbytes for _, _, nbytes in _pieces(seen, most))


def measure_descent(base: TensorInfo, tuned: TensorInfo, most: int | None, ordered: bool = False) -> Descent | None:
    """Compare two tensors of one shape, by at most so many entries or by all; None where a side has no spread.

    `ordered`: no other order of rows or columns is looked for.
    """
    sums = _Sums()
    if most is None:
        for before, after in zip(iter_values(base), iter_values(tuned), strict=True):
            sums.add(before, after)
    else:
        before, after = (read_runs(info, sampled_runs(info.numel, most)) for info in (base, tuned))
        if before is None or after is None:
            return None
        sums.add(before, after)
    sampled = most is not None and base.numel > most
    found = sums.descent(sampled)
    if found is None or found.correlation >= _SAME_ROW or len(base.shape) != 2 or ordered:
        return found
    return replace(found, permutation=find_permutation(base, tuned, sampled))


def find_permutation(base: TensorInfo, tuned: TensorInfo, sampled: bool) -> str:
    """Say in words in which order base's rows or columns lie in tuned; empty where they are not found again."""
    rows, cols = (min(length, _MOST_ROWS) for length in base.shape)
    if sampled:
        rows, cols = min(rows, 128), min(cols, TENSOR_BYTES // 2 // 128 // 4)
    before, after = (_corner(info, rows, cols) for info in (base, tuned))
    if before is None or after is None:
        return ""
    for what, first, second in (("rows", before, after), ("columns", before.T, after.T)):
        order = _match_rows(first, second)
        if (order != np.arange(len(order)))[order >= 0].any():
            return _order_in_words(what, order, base.shape[what == "columns"])
    return ""


class _Sums:
    """Sums over the entries of two tensors, from which size and correlation follow; infinities are left out."""

    def __init__(self) -> None:
        self._values = np.zeros(7)

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Add some entries."""
        finite = np.isfinite(before) & np.isfinite(after)
        if not finite.all():
            before, after = before[finite], after[finite]
        delta = after - before
        products = (before @ before, after @ after, before @ after, delta @ delta)
        self._values += (len(before), before.sum(), after.sum(), *products)

    def descent(self, sampled: bool) -> Descent | None:
        """Return what the sums say."""
        count, first, second, before, after, both, delta = self._values.tolist()
        if not count or not before:
            return None
        spread = (before - first * first / count) * (after - second * second / count)
        if not spread > 1e-20 * before * after:
            return None
        correlation = (both - first * second / count) / math.sqrt(spread)
        return Descent(math.sqrt(delta / before), min(1.0, correlation), sampled)


def _share_of_bytes(rows: Sequence[PairedTensor]) -> int:
    """Return how many entries of each tensor are looked at, so that all together stay below the most."""
    sides = 2 * sum(row.tuned is not None for row in rows)
    return min(TENSOR_BYTES, TOTAL_BYTES // max(1, sides)) // 2 // 4  # half is for the order of rows


def _sides(row: PairedTensor) -> tuple[TensorInfo, TensorInfo]:
    return row.base, row.tuned if row.rows is None else pick_rows(row.tuned, row.rows)


def _drawn(rows: list[PairedTensor]) -> list[PairedTensor]:
    """Return some rows of very many, the same ones every time."""
    if len(rows) <= _MOST_AFAR:
        return rows
    places = np.random.default_rng(len(rows)).choice(len(rows), _MOST_AFAR, replace=False)
    return [rows[place] for place in sorted(places.tolist())]


def _pieces(rows: Iterable[PairedTensor], most: int) -> Iterator[tuple[TensorInfo, int, int]]:
    """Yield what of remote tensors will be looked at, as places of bytes."""
    for row in rows:
        for info in _sides(row) if row.action == REPAIR else (row.tuned,):
            if info is not None and info.numel:
                width = info.nbytes // info.numel
                yield from ((info, a * width, (b - a) * width) for a, b in sampled_runs(info.numel, most))


def _tell_drawn(seen: Sequence[PairedTensor], rows: Sequence[PairedTensor]) -> list[Notice]:
    """Tell that not every tensor was looked at."""
    if len(seen) == len(rows):
        return []
    message = f"Of {len(rows):,} tensors that are read from afar, {len(seen):,} were compared with base's."
    return [Notice("drawn", INFO, message, "Nothing to do: a repair looks at all of what it changes.")]


def _measure(row: PairedTensor, most: int, whole: bool, afar: bool) -> Descent | None:
    if isinstance(row.tuned, LoraTensor | LoraStack):
        return None  # base itself, with something added
    base, tuned = _sides(row)
    found = measure_descent(base, tuned, most, afar)
    doubtful = found is None or found.correlation < _DOUBTFUL
    if whole and doubtful and (found is None or found.sampled):
        return measure_descent(base, tuned, None)
    return found


def _measure_small(rows: Sequence[PairedTensor], most: int) -> dict[str, Descent]:
    """Return what `_measure` finds in small tensors that clearly descend from base's, many of one size at a time."""
    alike: dict[tuple[int, str, str], list[PairedTensor]] = {}
    for row in rows:
        plain = type(row.base) is type(row.tuned) is TensorInfo and row.rows is None
        if plain and 0 < row.tuned.nbytes <= SMALL_BYTES and 0 < row.base.nbytes <= SMALL_BYTES:
            alike.setdefault((row.tuned.numel, row.base.dtype, row.tuned.dtype), []).append(row)
    found: dict[str, Descent] = {}
    for (numel, *_), own in alike.items():
        runs = sampled_runs(numel, most)
        for first in range(0, len(own), _TOGETHER):
            part = own[first : first + _TOGETHER]
            before, after = (
                read_small_runs([getattr(row, side) for row in part], runs) for side in ("base", "tuned")
            )
            found |= _clear(part, before, after, numel > most)
    return found


def _clear(rows: Sequence[PairedTensor], before: np.ndarray, after: np.ndarray, sampled: bool) -> dict[str, Descent]:
    """Return how the entries of tensors compare, a row of an array each, of those whose entries are correlated."""
    with np.errstate(all="ignore"):  # of rows that are left to `_measure`
        delta, count = after - before, before.shape[1]
        first, second = before.sum(axis=1), after.sum(axis=1)
        products = ((before, before), (after, after), (before, after), (delta, delta))
        before, after, both, delta = (np.einsum("ij,ij->i", *factors) for factors in products)
        spread = (before - first * first / count) * (after - second * second / count)
        correlations, ratios = (both - first * second / count) / np.sqrt(spread), np.sqrt(delta / before)
        clear = (correlations >= _SAME_ROW) & np.isfinite(ratios) & (spread > 1e-20 * before * after)
    figures = zip(rows, clear.tolist(), ratios.tolist(), correlations.tolist(), strict=True)
    return {row.name: Descent(ratio, min(1.0, own), sampled) for row, sure, ratio, own in figures if sure}


def _kept(row: PairedTensor, cause: str) -> PairedTensor:
    found = row.descent
    figures = f"correlation {found.correlation:.2f}, |tuned - base| / |base| {found.ratio:.2f}"
    reason = f"Nothing in common with base's ({figures}): no update of it, so it is left as in tuned."
    if cause == "permuted":
        reason = f"Base's tensor in another order ({found.permutation}), so that no difference is an update."
    return replace(row, action=CAUSES[cause][0], cause=cause, reason=reason)


def _block_unrelated(rows: Sequence[PairedTensor], share: float) -> Notice:
    message = (
        f"base and tuned do not belong together: {100 * share:.0f} % of the parameters in matrices have nothing in "
        f"common, such as {_figures(rows[0])}."
    )
    remedy = (
        "Give the base that tuned was trained from: all of tuned would be taken for noise. To repair all the same: "
        f"{option('--force')}."
    )
    return Notice("unrelated", BLOCKS, message, remedy, tuple(row.name for row in rows))


def _tell_unrelated(rows: Sequence[PairedTensor]) -> list[Notice]:
    if not rows:
        return []
    what = "1 tensor has" if len(rows) == 1 else f"{len(rows)} tensors have"
    message = f"{what} nothing in common with base and will be left as in tuned: {_all_figures(rows)}."
    remedy = "Right for a head that fine-tuning began anew. Otherwise check that this is its base."
    return [Notice("unrelated_tensors", WARNING, message, remedy, tuple(row.name for row in rows))]


def _tell_permuted(rows: Sequence[PairedTensor]) -> list[Notice]:
    if not rows:
        return []
    what = "1 tensor is base's" if len(rows) == 1 else f"{len(rows)} tensors are base's"
    message = f"{what} in another order and will be left as in tuned: {_all_figures(rows)}."
    remedy = "One side was converted (to GGUF and back, say) and the other not: bring them into one order first."
    return [Notice("permuted", WARNING, message, remedy, tuple(row.name for row in rows))]


def _tell_unchanged(rows: Sequence[PairedTensor]) -> list[Notice]:
    if not rows or any(row.descent.ratio for row in rows):
        return []
    sampled = " in all entries sampled" if any(row.descent.sampled for row in rows) else ""
    message = f"Tuned is base{sampled}: not one of {len(rows)} weights has changed."
    return [Notice("unchanged", WARNING, message, "Give the model after fine-tuning as tuned.")]


def _tell_broken(rows: Iterable[PairedTensor], most: int, whole: bool) -> list[Notice]:
    """Tell of numbers that are none in what will be copied; a repair looks at all entries as it copies them."""
    found = [(row, at) for row in rows if not whole and (at := _first_broken(row, most)) is not None]
    if not found:
        return []
    shown = some(f"{row.name} holds {at}" for row, at in found)
    message = f"Values of tuned that are no numbers will be copied as they are: {shown}."
    remedy = "Right for masks. In a norm or a bias no output of the model is a number: look for a sound checkpoint."
    return [Notice("not_finite", WARNING, message, remedy, tuple(row.name for row, _ in found))]


def _first_broken(row: PairedTensor, most: int) -> str | None:
    """Return the first NaN or infinity among the entries sampled of a kept tensor, and its place; None for none."""
    info = row.tuned
    if row.action == REPAIR or info is None or not info.is_floating or not info.numel:
        return None
    runs = sampled_runs(info.numel, most)
    values = read_runs(info, runs)
    if values is None or np.isfinite(values).all():
        return None
    places = np.concatenate([np.arange(begin, end) for begin, end in runs])
    first = int(np.flatnonzero(~np.isfinite(values))[0])
    return f"{values[first]} at {entry_in_words(int(places[first]), info.shape)}"


def entry_in_words(place: int, shape: Sequence[int]) -> str:
    """Return where the entry of a number lies in a tensor: ``[2, 31]``."""
    return str([int(number) for number in np.unravel_index(place, shape)]) if shape else "its one entry"


def _all_figures(rows: Sequence[PairedTensor]) -> str:
    return some(map(_figures, rows))


def _figures(row: PairedTensor) -> str:
    """Return a tensor's name with what was measured."""
    found = row.descent
    if found.permutation:
        return f"{row.name} ({found.permutation})"
    sampled = ", sampled" if found.sampled else ""
    return f"{row.name} (|tuned - base| / |base| {found.ratio:.2f}, correlation {found.correlation:.2f}{sampled})"


def _corner(info: TensorInfo, rows: int, cols: int) -> np.ndarray | None:
    """Return the first entries of the first rows."""
    width = info.shape[1]
    values = read_runs(info, [(row * width, row * width + cols) for row in range(rows)])
    return None if values is None else values.reshape(rows, cols)


def _match_rows(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return for every row which of the others it was, one to one, or -1; -1 for all where too few are found."""
    first, second = (_normal(rows) for rows in (before, after))
    cosines = second @ first.T
    order = cosines.argmax(axis=1)
    found = cosines[np.arange(len(order)), order] >= _SAME_ROW
    sure = found.mean() >= _SAME_ROWS and len(set(order[found].tolist())) == found.sum()
    return np.where(found & sure, order, -1)


def _normal(rows: np.ndarray) -> np.ndarray:
    rows = np.nan_to_num(rows, posinf=0.0, neginf=0.0)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def _order_in_words(what: str, order: np.ndarray, length: int) -> str:
    """Name a permutation: rotary halves and pairs by what they are, others by their beginning."""
    new = np.flatnonzero(order >= 0)
    old = order[new]
    for size in range(2, min(len(order), length - 1) + 1):
        if length % size or (old // size != new // size).any():
            continue
        inside, half = f"{what} permuted within heads of {size}", size // 2
        start, place = new // size * size, new % size
        if size % 2 == 0 and (old == start + place % 2 * half + place // 2).all():
            return f"{inside}: the two rotary halves interleaved, as GGUF and Meta's own files have them"
        if size % 2 == 0 and (old == start + place % half * 2 + place // half).all():
            return f"{inside}: rotary pairs taken apart into two halves, as transformers has them"
        return f"{inside}: {_moves(old, new)}"
    return f"{what} permuted: {_moves(old, new)}"


def _moves(old: np.ndarray, new: np.ndarray) -> str:
    """Return the first entries of a permutation that moves something."""
    moved = old != new
    return some(f"{a} to {b}" for a, b in zip(old[moved].tolist(), new[moved].tolist(), strict=True))
