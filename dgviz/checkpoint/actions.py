"""Why a tensor is repaired or kept: the rules of the method's scope, each with words to count by and a reason."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from dgviz.checkpoint.layout import matrix_layout
from dgviz.checkpoint.lora.tensor import LoraStack, LoraTensor
from dgviz.checkpoint.types import BASE_ONLY, BLOCKS, KEEP, REPAIR, Notice, PairedTensor, TensorInfo, is_floating
from dgviz.command import option

MIN_ELEMENTS = 1024
"""Smaller matrices are kept: the method's own scope."""

CAUSES = {
    "matrix": (REPAIR, ""),
    "update": (REPAIR, ""),
    "vocabulary": (REPAIR, ""),
    "vector": (KEEP, "kept because 1-D"),
    "layout": (KEEP, "kept because nothing tells whether {they_are} a stack"),
    "small": (KEEP, f"kept because smaller than {MIN_ELEMENTS} elements"),
    "integer": (KEEP, "kept because not floating point"),
    "excluded": (KEEP, "kept by --exclude"),
    "not_included": (KEEP, "kept because --include leaves {them} out"),
    "untouched": (KEEP, "kept because the adapter leaves {them} as in base"),
    "tuned_only": (KEEP, "kept because only in tuned"),
    "tokens": (KEEP, "kept because no row has the same token on both sides"),
    "unrelated": (KEEP, "kept because {they_have} nothing in common with base"),
    "permuted": (KEEP, "kept because {they_are} base's in another order"),
    "shape": (KEEP, "{differ} in shape"),
    "float8": (KEEP, "{are} float8 without scales"),
    "base_only": (BASE_ONLY, "only in base and not written"),
}
"""Every cause, with the action it leads to and how a count of it is said (after the number)."""


Why = tuple[str, str]
"""A cause, one of `CAUSES`, and the reason in a sentence."""

LEFT_OUT = {"excluded": "Excluded by --exclude.", "not_included": "Not selected by --include."}
"""Reasons of what the user's own choice keeps, by their cause."""


def why_kept(info: TensorInfo, other: TensorInfo) -> Why | None:
    """Return why a tensor is kept whatever the user chose, or None."""
    return _why_kept(info.shape, info.dtype, other.dtype)


@lru_cache(maxsize=1024)
def _why_kept(shape: tuple[int, ...], tuned: str, base: str) -> Why | None:
    """Return `why_kept` of a tensor of two dtypes; few differ in all the tensors of a model."""
    for side, dtype in (("tuned", tuned), ("base", base)):
        if not is_floating(dtype):
            return "integer", f"Not floating point ({dtype} in {side}), so there is no spectrum."
    if matrix_layout(shape) is None:
        return "vector", "Not a matrix: fewer than two dimensions longer than one."
    if math.prod(shape) < MIN_ELEMENTS:
        return "small", f"Small: fewer than {MIN_ELEMENTS} elements."
    for side, dtype in (("base", base), ("tuned", tuned)):
        if dtype.startswith("float8"):
            return "float8", f"It is {dtype} in {side}, whose values mean nothing without their scales."
    return None


def why_repaired(info: TensorInfo, note: str) -> Why:
    """Return why a tensor is repaired."""
    if isinstance(info, LoraTensor | LoraStack):
        return "update", f"A floating-point matrix, to which the adapter adds an update of rank {info.rank}."
    if note:
        return "matrix", f"A floating-point matrix; {note}, of the same shape."
    return "matrix", "A floating-point matrix of the same shape on both sides."


def exact_pattern(names: Sequence[str]) -> str:
    """Return a regular expression that finds these names and no others."""
    return f"^(?:{'|'.join(map(re.escape, names))})$"


def block_shapes(mismatched: list[PairedTensor], common: int) -> Notice:
    """Return what blocks a pair in which tensors of one name differ in shape."""
    shown = "; ".join(
        f"{row.name!r} is {row.base.shape} in base ({row.base.file}) and "
        f"{row.tuned.shape} in tuned ({row.tuned.file})"
        for row in mismatched[:3]
    )
    more = f"; and {len(mismatched) - 3} more" if len(mismatched) > 3 else ""
    names = tuple(row.name for row in mismatched)
    # The whole list, so that the remedy works as it stands; a long one points to the wrong base anyway.
    pattern = exact_pattern(names) if len(mismatched) <= 8 else ""
    excluded = option("--exclude", pattern) if pattern else "--exclude and their names"
    message = f"{len(mismatched)} of {common} common tensors differ in shape: {shown}{more}."
    remedy = f"Is this the base it was tuned from? If so, keep tuned's bytes with {excluded}"
    return Notice("shape_mismatch", BLOCKS, message, remedy, names, pattern)


def block_float8(found: list[PairedTensor]) -> Notice:
    """Return what blocks a pair with 8-bit floats that have no scales."""
    sides = (("base", found[0].base), ("tuned", found[0].tuned))
    side, info = next((side, info) for side, info in sides if info.dtype.startswith("float8"))
    names = tuple(row.name for row in found)
    pattern = exact_pattern(names)
    more = f" ({len(found)} such tensors)" if len(found) > 1 else ""
    where = f"tensor {found[0].name!r} is {info.dtype} in {side} ({info.file})"
    message = f"{where}, whose values mean nothing without their scales{more}."
    remedy = f"convert the model to bfloat16, or keep tuned's bytes with {option('--exclude', pattern)}"
    return Notice("float8", BLOCKS, message, remedy, names, pattern)
