"""Pair two checkpoints: every tensor of both sides gets exactly one fate, with its reason."""

import re
import shlex
from collections import Counter
from pathlib import Path

from dgviz.checkpoint.adapter import is_adapter, open_adapter
from dgviz.checkpoint.dequantise import dequantised
from dgviz.checkpoint.derived import pick_rows
from dgviz.checkpoint.layout import matrix_layout
from dgviz.checkpoint.local import local_path, open_checkpoint
from dgviz.checkpoint.lora import LoraTensor
from dgviz.checkpoint.names import Match, Matches, is_head, match_names, tied_embedding
from dgviz.checkpoint.quantised import refuse_quantised
from dgviz.checkpoint.read import same_bytes
from dgviz.checkpoint.types import BASE_ONLY, KEEP, REPAIR, Checkpoint, CheckpointPair, PairedTensor, TensorInfo
from dgviz.checkpoint.vocabulary import Ranges, Vocabularies, read_vocabularies
from dgviz.errors import CheckpointError, PairError

MIN_ELEMENTS = 1024
"""Smaller matrices are kept: the method's own scope."""


def open_pair(
    base_path: str | Path, tuned_path: str | Path, include: str | None = None, exclude: str | None = None
) -> CheckpointPair:
    """Open two checkpoints and pair them; see `open_checkpoint` and `pair_checkpoints`.

    The tuned side may be a directory with a PEFT LoRA adapter of the base: see `dgviz.checkpoint.adapter`.
    """
    base = open_checkpoint(base_path)
    adapter = local_path(tuned_path)
    if is_adapter(adapter):
        base = dequantised(base, "base")
        return pair_checkpoints(base, open_adapter(adapter, base), include, exclude)
    return pair_checkpoints(base, open_checkpoint(tuned_path), include, exclude)


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
    refuse_quantised(tuned, "tuned")
    base = dequantised(base, "base")
    matches = match_names(base, tuned)
    if not matches.found:
        raise PairError(_explain_no_match(base, tuned, matches.problem))
    rows = []
    mismatched = []
    vocabularies = None
    for name, info in tuned.tensors.items():
        match = matches.found.get(name)
        other = match.base if match else None
        reason = _left_out(name, included, excluded)
        common = None
        if other is not None and reason is None and other.shape != info.shape:
            vocabularies = vocabularies or read_vocabularies(base, tuned)
            common = vocabularies.common_rows(other, info)
            if common is None:
                mismatched.append((other, info))
        if other is None:
            alone = f"Only in tuned, so there is no delta{_other_names(matches.problem)}."
            rows.append(PairedTensor(name, None, info, KEEP, alone))
        elif common is not None:
            rows.append(_pair_common_rows(info, match, common, vocabularies))
        else:
            if tuned.is_adapter and info == other:
                reason = "The adapter leaves it as it is in base."
            reason = reason or _own_reason(info, other)
            rows.append(
                PairedTensor(
                    name, other, info, KEEP if reason else REPAIR, reason or _repair_reason(info, match.note)
                )
            )
    if mismatched:
        raise PairError(_explain_mismatch(mismatched, len(matches.found)))
    rows, used = _write_tied_once(rows, tuned, matches)
    without_tuned = f"Only in base, and the repaired model has tuned's tensors{_other_names(matches.problem)}."
    rows += [
        # A name that tuned has too is that of a head which tuned ties, and base does not.
        PairedTensor(f"{name} (base)" if name in tuned.tensors else name, info, None, BASE_ONLY, without_tuned)
        for name, info in base.tensors.items()
        if name not in used
    ]
    pair = CheckpointPair(base, tuned, tuple(rows))
    if not pair.repairable:
        raise PairError(_explain_nothing(pair))
    return pair


def _pair_common_rows(info: TensorInfo, match: Match, common: Ranges, vocabularies: Vocabularies) -> PairedTensor:
    """Pair the rows of a tensor whose tokens agree; tuned's other rows are copied."""
    count = sum(end - begin for begin, end in common)
    if count == 0:
        return PairedTensor(info.name, match.base, info, KEEP, "No row has the same token in base and tuned.")
    other = pick_rows(match.base, common)
    reason = _own_reason(pick_rows(info, common), other)
    if reason is not None:
        return PairedTensor(info.name, match.base, info, KEEP, reason)
    known = "by tokenizer.json" if vocabularies.tokens is not None else "by position, for want of a tokenizer.json"
    reason = (
        f"A floating-point matrix over another vocabulary: {count} of its {info.shape[0]} rows have the same token "
        f"in base ({known}) and are repaired, {info.shape[0] - count} are copied."
    )
    rows = None if count == info.shape[0] else common
    return PairedTensor(info.name, other, info, REPAIR, reason, rows)


def _write_tied_once(
    rows: list[PairedTensor], tuned: Checkpoint, matches: Matches
) -> tuple[list[PairedTensor], set[str]]:
    """Give a head that tuned stores beside the embedding it is tied to the embedding's fate.

    Both are one tensor, and transformers unties them without a word where their bytes differ.

    Returns
    -------
    rows : list of PairedTensor
        With the head changed.
    used : set of str
        The names of base that they are about.
    """
    used = {name: match.uses for name, match in matches.found.items()}
    embedding = next((row for row in rows if row.name == tied_embedding(tuned)), None)
    for position, row in enumerate(rows):
        if embedding is None or not is_head(row.name) or not same_bytes(row.tuned, embedding.tuned):
            continue
        reason = f"Tied to {embedding.name}: one tensor, stored twice and written twice, bit for bit the same."
        base = embedding.base
        if None not in (row.base, base) and row.rows == embedding.rows and same_bytes(row.base, base):
            base = row.base
        elif used.get(row.name) != used.get(embedding.name):
            used[row.name] = ()  # base's own head is another tensor, of which nothing is written
        rows[position] = PairedTensor(row.name, base, row.tuned, embedding.action, reason, embedding.rows)
    return rows, {name for names in used.values() for name in names}


def _other_names(problem: str) -> str:
    return f" (by exact names: {problem})" if problem else ""


def _explain_no_match(base: Checkpoint, tuned: Checkpoint, problem: str) -> str:
    return (
        f"no tensor name is in both {base.path} (such as {next(iter(base.tensors))!r}) and {tuned.path} (such as "
        f"{next(iter(tuned.tensors))!r}): these are different models, or one was saved with other names"
        f"{_other_names(problem)}"
    )


def _compile(option: str, pattern: str | None) -> re.Pattern[str] | None:
    if not pattern:  # an empty field of a form is no choice; as an expression it would find everything
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise PairError(f"--{option} {pattern!r} is not a valid regular expression ({error}): correct it") from error


def _refuse_same(base: Checkpoint, tuned: Checkpoint) -> None:
    # By the files and not the directories: two snapshots of one cached repository may link to the same blobs.
    if not tuned.is_adapter and _files(base) == _files(tuned):
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


def _own_reason(info: TensorInfo, other: TensorInfo) -> str | None:
    """Return why a tensor is kept whatever the user chose, or None."""
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


def _repair_reason(info: TensorInfo, note: str) -> str:
    if isinstance(info, LoraTensor):
        return f"A floating-point matrix, to which the adapter adds an update of rank {info.parts[1].shape[0]}."
    if note:
        return f"A floating-point matrix; {note}, of the same shape."
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
