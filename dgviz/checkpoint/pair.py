"""Pair two checkpoints: every tensor of both sides gets exactly one fate, with its reason."""

import re
import shlex
from collections import Counter
from pathlib import Path

from dgviz.checkpoint.layout import matrix_layout
from dgviz.checkpoint.local import open_checkpoint
from dgviz.checkpoint.names import match_names
from dgviz.checkpoint.quantised import refuse_quantised
from dgviz.checkpoint.types import BASE_ONLY, KEEP, REPAIR, Checkpoint, CheckpointPair, PairedTensor, TensorInfo
from dgviz.errors import CheckpointError, PairError

MIN_ELEMENTS = 1024
"""Smaller matrices are kept: the method's own scope."""


def open_pair(
    base_path: str | Path, tuned_path: str | Path, include: str | None = None, exclude: str | None = None
) -> CheckpointPair:
    """Open two checkpoints and pair them; see `open_checkpoint` and `pair_checkpoints`."""
    return pair_checkpoints(open_checkpoint(base_path), open_checkpoint(tuned_path), include, exclude)


def pair_checkpoints(
    base: Checkpoint, tuned: Checkpoint, include: str | None = None, exclude: str | None = None
) -> CheckpointPair:
    """Give every tensor of two checkpoints its fate.

    ``repair``: floating point, of one shape on both sides, a matrix after squeezing, at least 1024 elements, and
    selected. ``keep``: tuned's bytes are copied. ``base_only``: not written.

    Parameters
    ----------
    base, tuned : Checkpoint
        The model before and after fine-tuning.
    include, exclude : str, optional
        Regular expressions searched for in tuned's names: only what `include` finds, and nothing that `exclude`
        finds, is repaired. What they leave out may differ in shape. None or empty: no such restriction.

    Raises
    ------
    PairError
        If the two do not belong together: the same files, no name in common, different shapes, nothing to repair; or
        if an expression is not valid.
    CheckpointError
        If either is quantised.
    """
    included, excluded = _compile("include", include), _compile("exclude", exclude)
    _refuse_same(base, tuned)
    refuse_quantised(base, "base")
    refuse_quantised(tuned, "tuned")
    matches = match_names(base, tuned)
    if not matches:
        raise PairError(
            f"no tensor name is in both {base.path} (such as {next(iter(base.tensors))!r}) and {tuned.path} (such as "
            f"{next(iter(tuned.tensors))!r}): these are different models, or one was saved with other names"
        )
    rows = []
    mismatched = []
    for name, info in tuned.tensors.items():
        other = base.tensors[matches[name]] if name in matches else None
        reason = _left_out(name, included, excluded)
        if other is not None and reason is None and other.shape != info.shape:
            mismatched.append((other, info))
        reason = _own_reason(info, other) if other is None else reason or _own_reason(info, other)
        rows.append(
            PairedTensor(name, other, info, KEEP if reason else REPAIR, reason or _repair_reason(info, other))
        )
    if mismatched:
        raise PairError(_explain_mismatch(mismatched, len(matches)))
    matched = set(matches.values())
    rows += [
        PairedTensor(name, info, None, BASE_ONLY, "Only in base, and the repaired model has tuned's tensors.")
        for name, info in base.tensors.items()
        if name not in matched
    ]
    pair = CheckpointPair(base, tuned, tuple(rows))
    if not pair.repairable:
        raise PairError(_explain_nothing(pair))
    return pair


def _compile(option: str, pattern: str | None) -> re.Pattern[str] | None:
    if not pattern:  # an empty field of a form is no choice; as an expression it would find everything
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise PairError(f"--{option} {pattern!r} is not a valid regular expression ({error}): correct it") from error


def _refuse_same(base: Checkpoint, tuned: Checkpoint) -> None:
    # By the files and not the directories: two snapshots of one cached repository may link to the same blobs.
    if _files(base) == _files(tuned):
        raise PairError(
            f"base and tuned are the same weights ({base.path} and {tuned.path}): give the model before fine-tuning "
            "as base and the one after it as tuned"
        )


def _files(checkpoint: Checkpoint) -> set[tuple[int, int]]:
    """Return the device and inode of every weight file."""
    try:
        stats = [(checkpoint.path / shard).stat() for shard in checkpoint.shards]
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint.path} has changed since it was opened ({error.strerror or error}): open it again"
        ) from error
    return {(stat.st_dev, stat.st_ino) for stat in stats}


def _left_out(name: str, included: re.Pattern[str] | None, excluded: re.Pattern[str] | None) -> str | None:
    """Return why the user's own choice keeps a tensor, or None."""
    if excluded is not None and excluded.search(name):
        return "Excluded by --exclude."
    if included is not None and not included.search(name):
        return "Not selected by --include."
    return None


def _own_reason(info: TensorInfo, other: TensorInfo | None) -> str | None:
    """Return why a tensor is kept whatever the user chose, or None."""
    if other is None:
        return "Only in tuned, so there is no delta."
    for side, tensor in (("tuned", info), ("base", other)):
        if not tensor.is_floating:
            return f"Not floating point ({tensor.dtype} in {side}), so there is no spectrum."
    if matrix_layout(info.name, info.shape) is None:
        return "Not a matrix: fewer than two dimensions longer than one."
    if info.numel < MIN_ELEMENTS:
        return f"Small: fewer than {MIN_ELEMENTS} elements."
    for side, tensor in (("base", other), ("tuned", info)):
        if tensor.dtype.startswith("float8"):
            raise PairError(
                f"tensor {info.name!r} is {tensor.dtype} in {side} ({tensor.file}), whose values mean nothing "
                "without their scales: convert the model to bfloat16, or keep tuned's bytes with "
                f"--exclude {exact_pattern([info.name])}"
            )
    return None


def _repair_reason(info: TensorInfo, other: TensorInfo) -> str:
    if other.name != info.name:
        return f"A floating-point matrix; base ties it to {other.name}, of the same shape."
    return "A floating-point matrix of the same shape on both sides."


def exact_pattern(names: list[str]) -> str:
    """Return a regular expression that finds these names and no others, quoted for a shell."""
    return shlex.quote(f"^(?:{'|'.join(map(re.escape, names))})$")


def _explain_mismatch(mismatched: list[tuple[TensorInfo, TensorInfo]], common: int) -> str:
    shown = "; ".join(
        f"{tuned.name!r} is {base.shape} in base ({base.file}) and {tuned.shape} in tuned ({tuned.file})"
        for base, tuned in mismatched[:3]
    )
    more = f"; and {len(mismatched) - 3} more" if len(mismatched) > 3 else ""
    # The whole list, so that the remedy works as it stands; a long one points to the wrong base anyway.
    pattern = exact_pattern([tuned.name for _, tuned in mismatched]) if len(mismatched) <= 8 else "and their names"
    return (
        f"{len(mismatched)} of {common} common tensors differ in shape: {shown}{more}. Is this the base it was tuned "
        f"from? If so, keep tuned's bytes with --exclude {pattern}"
    )


def _explain_nothing(pair: CheckpointPair) -> str:
    reasons = Counter(paired.reason for paired in pair.tensors)
    counted = "; ".join(f"{count} times: {reason.rstrip('.')}" for reason, count in reasons.most_common(4))
    return f"nothing to repair between {pair.base.path} and {pair.tuned.path} ({counted})"
