"""Empty tensors: what a save under DeepSpeed ZeRO-3 leaves where the weights were not gathered from the ranks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dgviz.checkpoint.folders import explain_zero
from dgviz.checkpoint.types import BLOCKS, Notice, PairedTensor, TensorInfo
from dgviz.errors import CheckpointError
from dgviz.words import some


def _saved(names: Sequence[str]) -> str:
    one = len(names) == 1
    return (
        f"{'is' if one else 'are'} empty ({some(map(repr, names))}): {'it was' if one else 'they were'} saved under "
        "DeepSpeed ZeRO-3 without gathering the weights"
    )


def _remedy(directory: Path) -> str:
    here = explain_zero(directory) or explain_zero(directory.parent)
    script = f"in {directory}: {here}" if here else "run the zero_to_fp32.py that lies in the training checkpoint"
    return f"{script}; or save again with stage3_gather_16bit_weights_on_model_save"


def refuse_ungathered(file: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Raise where a file of an adapter holds an empty tensor."""
    empty = [name for name, info in tensors.items() if info.numel == 0]
    if empty:
        raise CheckpointError(
            f"{len(empty)} of {len(tensors)} tensors in {file} {_saved(empty)}; {_remedy(file.parent)}"
        )


def block_ungathered(rows: Sequence[PairedTensor]) -> list[Notice]:
    """Return what blocks a pair in which one side's tensor is empty and the other's is not, whatever is excluded."""
    notices = []
    for side, other in (("tuned", "base"), ("base", "tuned")):
        found = [
            row
            for row in rows
            if (info := getattr(row, side)) is not None
            and info.numel == 0
            and ((twin := getattr(row, other)) is None or twin.shape != info.shape)
        ]
        if any(getattr(row, other) is not None for row in found):
            names = [getattr(row, side).name for row in found]
            total = sum(getattr(row, side) is not None for row in rows)
            message = f"{len(found)} of {side}'s {total} tensors {_saved(names)}."
            remedy = _remedy(getattr(found[0], side).file.parent)
            notices.append(Notice("ungathered", BLOCKS, message, remedy, tuple(row.name for row in found)))
    return notices
