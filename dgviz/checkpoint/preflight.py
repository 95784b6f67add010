"""The preflight: one table of both sides, its totals in plain words, everything surprising; nothing is computed."""

import statistics
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dgviz.checkpoint.actions import CAUSES
from dgviz.checkpoint.findings import FINDINGS
from dgviz.checkpoint.layout import matrix_layout
from dgviz.checkpoint.types import (
    ACTIONS,
    KEEP,
    REPAIR,
    SEVERITIES,
    WARNING,
    Checkpoint,
    CheckpointPair,
    Descent,
    Notice,
    PairedTensor,
    TensorInfo,
)

EXPECTED_SHARE = 0.9
"""Share of the parameters in matrices that a repair usually reaches; below it something is odd."""
_OF_THE_PAIR = {"other_base", "swapped", "config_structure", "stale_vocabulary", "adapter_beside"}


@dataclass(frozen=True)
class Side:
    """One side of a row: the tensor's own name, shape, dtype and size in bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class PreflightRow:
    """One tensor: its action, why, and what it is on both sides (None where a side lacks it); how they compare."""

    name: str
    action: str
    cause: str
    reason: str
    base: Side | None
    tuned: Side | None
    descent: Descent | None = None

    @property
    def side(self) -> Side:
        """What is written: tuned's side, or base's where there is no other."""
        return self.tuned or self.base

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values; shape, dtype and nbytes of what is written stand beside the two sides."""
        return asdict(self.side) | asdict(self)


@dataclass(frozen=True)
class Totals:
    """Counts and sizes.

    Attributes
    ----------
    tensors : int
        Rows of the table.
    counts : mapping
        Tensors by action.
    causes : mapping
        Tensors by cause, in the order of `CAUSES`; only causes that occur.
    matrix_parameters, repaired_parameters : int
        Floating-point parameters of tuned in tensors of two dimensions or more, and those of them that are repaired;
        what an adapter leaves as in base counts in neither.
    nbytes : mapping
        Size in bytes by action.
    ratio, correlation : float or None
        Of the weights compared, the median of ``|tuned - base| / |base|`` and the lowest correlation; None for none.
    sampled : bool
        Whether both are of a sample of the entries.
    """

    tensors: int
    counts: Mapping[str, int]
    causes: Mapping[str, int]
    matrix_parameters: int
    repaired_parameters: int
    nbytes: Mapping[str, int]
    ratio: float | None = None
    correlation: float | None = None
    sampled: bool = False

    @property
    def share(self) -> float:
        """Share of the parameters in matrices that is repaired; 1 where there are none."""
        return self.repaired_parameters / self.matrix_parameters if self.matrix_parameters else 1.0


@dataclass(frozen=True)
class Preflight:
    """What is known of a pair before anything is computed.

    Attributes
    ----------
    summary : str
        The totals in one sentence.
    totals : Totals
        The totals in numbers.
    notices : tuple of Notice
        Everything surprising, what blocks first.
    rows : tuple of PreflightRow
        Every tensor of both sides.
    """

    summary: str
    totals: Totals
    notices: tuple[Notice, ...]
    rows: tuple[PreflightRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values, as ``inspect --json`` prints it."""
        totals = asdict(self.totals)
        return {
            "summary": self.summary,
            "counts": totals.pop("counts"),
            "totals": totals | {"share": self.totals.share},
            "notices": [asdict(notice) for notice in self.notices],
            "tensors": [row.to_json() for row in self.rows],
        }


def read_preflight(pair: CheckpointPair) -> Preflight:
    """Return the preflight of a pair; reads headers that are known and names of files, no tensor data.

    Parameters
    ----------
    pair : CheckpointPair
        From `inspect_pair`, so that what blocks a repair is there to be seen.
    """
    totals = _count(pair)
    found = [*pair.notices, *_few_repaired(totals), *(notice for finding in FINDINGS for notice in finding(pair))]
    notices = tuple(sorted(found, key=lambda notice: SEVERITIES.index(notice.severity)))
    return Preflight(_summarise(totals), totals, notices, tuple(_row(paired, pair) for paired in pair.tensors))


def warnings_of(pair: CheckpointPair) -> list[Notice]:
    """Return the warnings of `read_preflight` that ask whether these are the two checkpoints that were meant.

    What becomes of their tensors and files is said, in other words, by the report of an output.
    """
    found = (notice for finding in FINDINGS for notice in finding(pair))
    return [notice for notice in found if notice.code in _OF_THE_PAIR]


def _row(paired: PairedTensor, pair: CheckpointPair) -> PreflightRow:
    sides = _side(paired.base, pair.base), _side(paired.tuned, pair.tuned)
    return PreflightRow(paired.name, paired.action, paired.cause, paired.reason, *sides, paired.descent)


def _side(info: TensorInfo | None, checkpoint: Checkpoint) -> Side | None:
    """Return a side as the checkpoint has it: of rows that were picked, the whole tensor."""
    if info is None:
        return None
    whole = checkpoint.tensors.get(info.name, info)
    shown = whole if info.shape[1:] == whole.shape[1:] else info  # a part of a stack is shown as what it is
    return Side(info.name, shown.shape, shown.dtype, shown.nbytes)


def _count(pair: CheckpointPair) -> Totals:
    causes = Counter(paired.cause for paired in pair.tensors)
    nbytes = dict.fromkeys(ACTIONS, 0)
    matrices = repaired = 0
    for paired in pair.tensors:
        info = paired.tuned or paired.base
        nbytes[paired.action] += info.nbytes
        if paired.tuned is None or paired.cause == "untouched" or not info.is_floating or len(info.shape) < 2:
            continue
        if matrix_layout(info.shape) is not None:
            matrices += info.numel
        if paired.action == REPAIR:
            repaired += paired.base.numel  # where the vocabulary differs, base is just the rows in common
    ordered = {cause: causes[cause] for cause in CAUSES if causes[cause]}
    known = [paired.descent for paired in pair.tensors if paired.descent is not None]
    compared = ()
    if known:
        ratio = statistics.median(item.ratio for item in known)
        compared = ratio, min(item.correlation for item in known), any(item.sampled for item in known)
    return Totals(len(pair.tensors), pair.counts(), ordered, matrices, repaired, nbytes, *compared)


def _summarise(totals: Totals) -> str:
    """Return the totals in one sentence."""
    others = _counted(totals, [cause for cause, (action, _) in CAUSES.items() if action != REPAIR])
    parts = [f"{totals.counts[REPAIR]} of {totals.tensors} tensors will be repaired", *others]
    percent = f"{100 * totals.share:.1f}".removesuffix(".0")
    return f"{', '.join(parts)}; the repaired hold {percent} % of the parameters in matrices."


def _counted(totals: Totals, causes: Collection[str]) -> list[str]:
    """Return in words how many tensors have each of some causes."""
    one = {"them": "it", "differ": "differs", "are": "is", "they_have": "it has", "they_are": "it is"}
    more = {"them": "them", "differ": "differ", "are": "are", "they_have": "they have", "they_are": "they are"}
    return [
        f"{count} {CAUSES[cause][1].format(**one if count == 1 else more)}"
        for cause, count in totals.causes.items()
        if cause in causes
    ]


def _few_repaired(totals: Totals) -> list[Notice]:
    """Return a warning where a repair would reach less of the model than it usually does."""
    if totals.share >= EXPECTED_SHARE:
        return []
    usual = ("vector", "integer", "untouched")
    kept = [cause for cause, (action, _) in CAUSES.items() if action == KEEP and cause not in usual]
    others = _counted(totals, kept)
    message = (
        f"Only {100 * totals.share:.1f} % of the parameters in matrices will be repaired, less than "
        f"{100 * EXPECTED_SHARE:.0f} %: {', '.join(others) or 'the rest are not matrices'}."
    )
    remedy = "Look through the reasons below: the rest of the update stays in the model as it is."
    return [Notice("few_repaired", WARNING, message, remedy)]
