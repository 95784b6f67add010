"""The inputs' contents: hashed as they are used, and compared when an export goes on.

A finished file is taken over only where every tensor it was made of still has the contents it had. Time stamps decide
nothing; they only tell when nothing need be read again. Each tensor is hashed right before it is used, so that the
second reading comes from memory: no file is read from the disk once more for this.
"""

from collections.abc import Mapping
from pathlib import Path

from dgviz.checkpoint import PairedTensor, content_hash
from dgviz.errors import CheckpointError, ExportError
from dgviz.export.plan import ExportPlan
from dgviz.files import FileStamp, file_stamp
from dgviz.repair.plan import RepairPlan

_Stamps = dict[Path, FileStamp]


def hash_inputs(paired: PairedTensor, repair: RepairPlan) -> dict[str, str]:
    """Return the hash of the contents of each side that decides what one tensor becomes."""
    return {side: content_hash(info) for side, info in repair.inputs(paired).items()}


def refuse_other_inputs(plan: ExportPlan, hashes: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse to go on where an input of what is written already has other contents now."""
    pair, out = plan.pair, plan.out
    known = {paired.name: paired for paired in pair.tensors}
    for name, before in hashes.items():
        paired = known.get(name)
        if paired is None or paired.tuned is None:
            raise ExportError(
                f"{out} holds {name!r}, made from other inputs: {pair.tuned.path} has no such tensor now; {_ADVICE}"
            )
        now = hash_inputs(paired, plan.repair)
        if now.keys() != before.keys():
            raise ExportError(
                f"{out} holds {name!r} made from {' and '.join(before)}, and it would now be made from "
                f"{' and '.join(now)}: {paired.reason}; {_ADVICE}"
            )
        for side, info in plan.repair.inputs(paired).items():
            if now[side] != before[side]:
                raise ExportError(
                    f"{info.file} holds other values for {name!r} than when {out} was begun (SHA-256 of {side}'s "
                    f"tensor {before[side][:12]}... then, {now[side][:12]}... now); {_ADVICE}"
                )


_ADVICE = "bring the earlier input back to finish, or export into a new folder"


class InputWatch:
    """Notices when an input file is replaced or rewritten during a run."""

    def __init__(self, plan: ExportPlan) -> None:
        self._plan = plan
        infos = [info for paired in plan.pair.tensors for info in (paired.base, paired.tuned) if info is not None]
        self._files = sorted({file for info in infos for file in info.files})
        self._stamps = self._look()

    def _look(self) -> _Stamps:
        """Return the stamp of every input file."""
        stamps = {}
        for file in self._files:
            try:
                stamps[file] = file_stamp(file.stat())
            except OSError as error:
                raise CheckpointError(
                    f"{file} cannot be read any more: {error.strerror or error}; bring it back and repeat the command"
                ) from error
        return stamps

    def refuse_changed(self, hashes: Mapping[str, Mapping[str, str]]) -> None:
        """Raise when an input has changed since the last look; a file that was only touched has not."""
        now = self._look()
        if now != self._stamps:
            refuse_other_inputs(self._plan, hashes)
            self._stamps = now
