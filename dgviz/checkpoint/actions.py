"""Why a tensor has its fate: the rules of the method's scope, each with a word to count by and a sentence to read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dgviz.checkpoint.experts import LoraStack
from dgviz.checkpoint.layout import matrix_layout
from dgviz.checkpoint.lora.tensor import LoraTensor
from dgviz.checkpoint.types import BASE_ONLY, BLOCKS, KEEP, REPAIR, Notice, TensorInfo
from dgviz.command import option
from dgviz.errors import PairError

MIN_ELEMENTS = 1024
"""Smaller matrices are kept: the method's own scope."""

CAUSES = {
    "matrix": (REPAIR, ""),
    "update": (REPAIR, ""),
    "vocabulary": (REPAIR, ""),
    "vector": (KEEP, "kept because 1-D"),
    "small": (KEEP, f"kept because smaller than {MIN_ELEMENTS} elements"),
    "integer": (KEEP, "kept because not floating point"),
    "excluded": (KEEP, "kept by --exclude"),
    "not_included": (KEEP, "kept because --include leaves {them} out"),
    "untouched": (KEEP, "kept because the adapter leaves {them} as in base"),
    "tuned_only": (KEEP, "kept because only in tuned"),
    "tokens": (KEEP, "kept because no row has the same token on both sides"),
    "shape": (KEEP, "{differ} in shape"),
    "float8": (KEEP, "{are} float8 without scales"),
    "base_only": (BASE_ONLY, "only in base and not written"),
}
"""Every cause, with the fate it leads to and how a count of it is said (after the number)."""


@dataclass(frozen=True)
class Fate:
    """What happens to a tensor: one of the three fates, its cause and its reason in a sentence."""

    action: str
    cause: str
    reason: str


def fate(cause: str, reason: str) -> Fate:
    """Return a fate by its cause."""
    return Fate(CAUSES[cause][0], cause, reason)


def compile_choice(option: str, pattern: str | None) -> re.Pattern[str] | None:
    """Return the expression behind ``--include`` or ``--exclude``; None where none is given."""
    if not pattern:  # an empty field of a form is no choice; as an expression it would find everything
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise PairError(f"--{option} {pattern!r} is not a valid regular expression ({error}): correct it") from error


def left_out(name: str, included: re.Pattern[str] | None, excluded: re.Pattern[str] | None) -> Fate | None:
    """Return the fate of a tensor that the user's own choice keeps, or None."""
    if excluded is not None and excluded.search(name):
        return fate("excluded", "Excluded by --exclude.")
    if included is not None and not included.search(name):
        return fate("not_included", "Not selected by --include.")
    return None


def own_fate(info: TensorInfo, other: TensorInfo) -> Fate | None:
    """Return the fate of a tensor that is kept whatever the user chose, or None."""
    for side, tensor in (("tuned", info), ("base", other)):
        if not tensor.is_floating:
            return fate("integer", f"Not floating point ({tensor.dtype} in {side}), so there is no spectrum.")
    if matrix_layout(info.name, info.shape) is None:
        return fate("vector", "Not a matrix: fewer than two dimensions longer than one.")
    if info.numel < MIN_ELEMENTS:
        return fate("small", f"Small: fewer than {MIN_ELEMENTS} elements.")
    for side, tensor in (("base", other), ("tuned", info)):
        if tensor.dtype.startswith("float8"):
            return fate("float8", f"It is {tensor.dtype} in {side}, whose values mean nothing without their scales.")
    return None


def repair_fate(info: TensorInfo, note: str) -> Fate:
    """Return the fate of a tensor that is repaired."""
    if isinstance(info, LoraTensor | LoraStack):
        rank = info.rank
        return fate("update", f"A floating-point matrix, to which the adapter adds an update of rank {rank}.")
    if note:
        return fate("matrix", f"A floating-point matrix; {note}, of the same shape.")
    return fate("matrix", "A floating-point matrix of the same shape on both sides.")


def exact_pattern(names: Sequence[str]) -> str:
    """Return a regular expression that finds these names and no others."""
    return f"^(?:{'|'.join(map(re.escape, names))})$"


def block_shapes(mismatched: list[tuple[TensorInfo, TensorInfo]], common: int) -> Notice:
    """Return what blocks a pair in which tensors of one name differ in shape."""
    shown = "; ".join(
        f"{tuned.name!r} is {base.shape} in base ({base.file}) and {tuned.shape} in tuned ({tuned.file})"
        for base, tuned in mismatched[:3]
    )
    more = f"; and {len(mismatched) - 3} more" if len(mismatched) > 3 else ""
    names = tuple(tuned.name for _, tuned in mismatched)
    # The whole list, so that the remedy works as it stands; a long one points to the wrong base anyway.
    pattern = exact_pattern(names) if len(mismatched) <= 8 else ""
    return Notice(
        "shape_mismatch",
        BLOCKS,
        f"{len(mismatched)} of {common} common tensors differ in shape: {shown}{more}.",
        "Is this the base it was tuned from? If so, keep tuned's bytes with "
        + (option("--exclude", pattern) if pattern else "--exclude and their names"),
        names,
        pattern,
    )


def block_float8(found: list[tuple[TensorInfo, TensorInfo]]) -> Notice:
    """Return what blocks a pair with 8-bit floats that have no scales."""
    base, tuned = found[0]
    side, info = ("base", base) if base.dtype.startswith("float8") else ("tuned", tuned)
    names = tuple(item.name for _, item in found)
    pattern = exact_pattern(names)
    more = f" ({len(found)} such tensors)" if len(found) > 1 else ""
    return Notice(
        "float8",
        BLOCKS,
        f"tensor {tuned.name!r} is {info.dtype} in {side} ({info.file}), whose values mean nothing without their "
        f"scales{more}.",
        f"convert the model to bfloat16, or keep tuned's bytes with {option('--exclude', pattern)}",
        names,
        pattern,
    )
