"""The export plan: what will be written where, computed and checked before any byte is written."""

import errno
import importlib.metadata
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

import dgviz
from dgviz.checkpoint import CheckpointPair, PairedTensor
from dgviz.checkpoint.hub import cache_folder
from dgviz.checkpoint.types import WARNING
from dgviz.errors import ExportError
from dgviz.export.lineage import base_id
from dgviz.export.manifest import finished_parts
from dgviz.export.shard import ITEM_BYTES, shard_order
from dgviz.export.sidecars import find_sidecars
from dgviz.packages import need
from dgviz.repair.methods import METHODS
from dgviz.repair.overrides import refuse_idle
from dgviz.repair.plan import RepairPlan
from dgviz.words import size

REPORT, RUN = "dgviz.json", "dgviz.run.json"
"""What was written, equal for equal inputs, plan and engine; and what no two runs share: times and last digits."""
ADAPTER_CONFIG = "adapter_config.json"
FORMATS: Mapping[str, str] = {
    "full": "a whole checkpoint, to be used in tuned's place",
    "lora": "a PEFT adapter for base at the kept ranks, exact in float32",
    "factors": "the two factors of every repaired update, as safetensors",
}
"""What can be written, and what it is."""
_ROW_BYTES = 4096  # disk kept free per tensor for header, index and report


@dataclass(frozen=True)
class ShardPlan:
    """One output file: its tensors in the order they are written."""

    name: str
    tensors: tuple[PairedTensor, ...]
    nbytes: int


@dataclass(frozen=True)
class ExportPlan:
    """Everything an export will do.

    Attributes
    ----------
    pair : CheckpointPair
        What is repaired.
    repair : RepairPlan
        How.
    out : Path
        Output directory.
    shards : tuple of ShardPlan
        One per tuned shard, with its name.
    sidecars : tuple of (str, str, Path)
        Relative name, ``"tuned"`` or ``"base"``, and source of every other file copied.
    total_bytes : int
        Bytes of all tensors written; of all tensors worked on where the size is known only by the ranks.
    free_bytes : int
        Free disk where the output goes.
    finished : frozenset of str
        What an earlier, unfinished run of the same plan completed.
    warnings : tuple of str
        Sentences for the user.
    format : str
        One of `FORMATS`.
    allow_code : bool
        Whether ``*.py`` files are carried over.
    base_name : str
        What base is called on the Hugging Face Hub, for card and adapter; empty where it is not said.
    left : mapping of str to str
        Name and reason of what stays behind in tuned's folder.
    check_logits : bool or None
        Whether the logits of the output are compared: None where both models fit into a quarter of the free memory.
    """

    pair: CheckpointPair
    repair: RepairPlan
    out: Path
    shards: tuple[ShardPlan, ...]
    sidecars: tuple[tuple[str, str, Path], ...]
    total_bytes: int
    free_bytes: int
    finished: frozenset[str]
    warnings: tuple[str, ...]
    format: str = "full"
    allow_code: bool = False
    base_name: str = ""
    left: Mapping[str, str] = field(default_factory=dict)
    check_logits: bool | None = False

    @property
    def index_name(self) -> str | None:
        """Name of the index to write: none for one ``model.safetensors``, or one file that the config names."""
        named = self.pair.tuned.config.get("transformers_weights")
        if isinstance(named, str) and named.endswith(".index.json"):
            return named
        if len(self.shards) == 1 and self.shards[0].name in ("model.safetensors", named):
            return None
        if all(shard.name.startswith("diffusion_pytorch_model") for shard in self.shards):
            return self._component_index()
        return "model.safetensors.index.json"

    def _component_index(self) -> str | None:
        """Name of the index of a diffusers component: diffusers looks for its own, and for one of each variant."""
        variant = ".fp16" if all(".fp16" in shard.name for shard in self.shards) else ""
        if [shard.name for shard in self.shards] == [f"diffusion_pytorch_model{variant}.safetensors"]:
            return None
        return f"diffusion_pytorch_model.safetensors.index{variant}.json"

    @property
    def options(self) -> dict[str, Any]:
        """What decides every output byte apart from the inputs' contents: an export is continued with these only."""
        return plan_options(self.repair, self.format, self.allow_code, self.base_name)

    @property
    def base_id(self) -> str | None:
        """What base is called on the hub, see `dgviz.export.lineage`; None where nobody says."""
        return base_id(self.pair, self.base_name)

    def written_bytes(self, name: str) -> int:
        """Return what one tensor counts for in `total_bytes`; 0 for one that is not written.

        Parameters
        ----------
        name : str
            A tensor of the pair.
        """
        info = self.pair[name].tuned
        if info is None or (self.format != "full" and self.pair[name].action != "repair"):
            return 0
        return info.numel * ITEM_BYTES[self.repair.output_dtype(info)]


def plan_options(repair: RepairPlan, output: str, allow_code: bool, base_name: str) -> dict[str, Any]:
    """Return what decides every output byte apart from the inputs' contents, as JSON gives it back."""
    versions = {"dgviz": dgviz.__version__, "torch": importlib.metadata.version("torch")}
    options = {"format": output, **repair.to_json(), "allow-code": allow_code, "base-name": base_name, **versions}
    return dict(orjson.loads(orjson.dumps(options)))


def plan_export(
    pair: CheckpointPair,
    repair: RepairPlan,
    out: str | Path,
    format: str = "full",
    allow_code: bool = False,
    base_name: str = "",
    check_logits: bool | None = False,
) -> ExportPlan:
    """Return what an export will write, or say why it cannot be written.

    Parameters
    ----------
    pair : CheckpointPair
        Base and tuned, every tensor with its fate.
    repair : RepairPlan
        Rule and output dtype.
    out : str or Path
        Output directory; created when absent.
    format : str
        One of `FORMATS`.
    allow_code : bool
        Whether ``*.py`` files are carried over.
    base_name : str
        What base is called on the hub.
    check_logits : bool or None
        Whether to compare the logits of the output, see `ExportPlan`.

    Raises
    ------
    ExportError
        If the output is, contains or lies in an input; is not empty (unless it holds an unfinished export of the same
        plan); is a file; the disk has too little room; or the format and the other options exclude each other.
    PairError
        If something blocks a repair of the pair.
    """
    pair.refuse_blocked()
    if not str(out).strip():
        raise ExportError("the output folder has no name; give a new or empty folder")
    _refuse_options(repair, format, allow_code, bool(check_logits))
    refuse_idle(repair, pair)
    target = Path(out).expanduser()
    _refuse_overlap(target, pair)
    _refuse_unwritable(target)
    finished = finished_parts(target, plan_options(repair, format, allow_code, base_name))
    shards = full_shards(pair, repair) if format == "full" else ()
    found = find_sidecars(pair, format, allow_code)
    sidecars, warnings = found.files, found.warnings
    if format == "lora":
        need("--format lora", "transformers", "peft")
    warnings += tuple(notice.sentence for notice in pair.notices if notice.severity == WARNING)
    if format == "lora" and not base_id(pair, base_name):
        warnings += (
            f"the adapter names its base by a path of this machine ({pair.base.path.resolve()}), which nobody else "
            "has: give --base-name ORG/NAME if it is to be used elsewhere",
        )
    free = shutil.disk_usage(_existing_parent(target)).free
    left = sum(shard.nbytes for shard in shards if shard.name not in finished)
    left += sum(source.stat().st_size for _, _, source in sidecars) + _ROW_BYTES * len(pair.tensors)
    if left > free:
        raise ExportError(
            f"{target} needs {size(left)} and the disk has {size(free)} free; "
            "free some space or choose another output"
        )
    total = sum(shard.nbytes for shard in shards)
    if format != "full":
        total = sum(item.tuned.numel * ITEM_BYTES[repair.output_dtype(item.tuned)] for item in pair.repairable)
    return ExportPlan(
        pair,
        repair,
        target,
        shards,
        sidecars,
        total,
        free,
        finished,
        warnings,
        format,
        allow_code,
        base_name,
        found.left,
        check_logits,
    )


def _refuse_options(repair: RepairPlan, output: str, allow_code: bool, check_logits: bool) -> None:
    """Refuse options that make no sense together."""
    if output not in FORMATS:
        raise ExportError(f"no output format {output!r}; choose one of {', '.join(FORMATS)}")
    if output != "full" and repair.dtype not in ("auto", "float32"):
        raise ExportError(
            f"--dtype {repair.dtype} is for --format full; an adapter and factors are written in float32, so that "
            "nothing is rounded away"
        )
    if output != "full" and (allow_code or check_logits):
        name, what = ("--allow-code", "copied") if allow_code else ("--check-logits", "loaded and asked")
        raise ExportError(f"{name} is for --format full: with {output} no model is {what}; leave it out")
    plans = {f"--method {repair.method}": repair.default}
    plans |= {f"the override {str(override)!r}": override.applied(repair.default) for override in repair.overrides}
    for name, plan in plans.items() if output != "full" else ():
        if not plan.keep and not plan.recipe.has_factors:
            known = ", ".join(method.name for method in METHODS.values() if method.has_factors)
            raise ExportError(
                f"--format {output} takes a method whose update is a product of two factors ({known}), and {name} "
                "is none; write --format full"
            )


def full_shards(pair: CheckpointPair, repair: RepairPlan) -> tuple[ShardPlan, ...]:
    """Return one output file per file of tuned."""
    by_shard: dict[str, list[PairedTensor]] = {name: [] for name in pair.tuned.shards}
    for paired in pair.tensors:
        if paired.tuned is not None:
            by_shard[paired.tuned.file.name].append(paired)
    return tuple(_shard_plan(_safetensors_name(name), tensors, repair) for name, tensors in by_shard.items())


def _safetensors_name(name: str) -> str:
    """Return the output's name for one of tuned's files: its own, unless that is a PyTorch pickle."""
    if not name.endswith(".bin"):
        return name
    return name.removesuffix(".bin").replace("pytorch_model", "model") + ".safetensors"


def _shard_plan(name: str, tensors: list[PairedTensor], repair: RepairPlan) -> ShardPlan:
    """Return one output file with its tensors in file order."""
    dtypes = {paired.name: repair.output_dtype(paired.tuned) for paired in tensors}
    ordered = sorted(tensors, key=lambda paired: shard_order(dtypes[paired.name], paired.name))
    nbytes = sum(paired.tuned.numel * ITEM_BYTES[dtypes[paired.name]] for paired in ordered)
    return ShardPlan(name, tuple(ordered), nbytes)


def _refuse_overlap(target: Path, pair: CheckpointPair) -> None:
    """Refuse an output that is, contains or lies in an input, or lies in the Hugging Face cache."""
    pair.refuse_output(target)
    resolved = Path(os.path.realpath(target))
    for side, checkpoint in (("base", pair.base), ("tuned", pair.tuned)):
        if resolved in checkpoint.path.resolve().parents:
            raise ExportError(
                f"the output {target} contains the {side} checkpoint {checkpoint.path}; choose another place"
            )
    cache = Path(os.path.realpath(cache_folder()))
    repositories = (folder for folder in resolved.parents if (folder / "snapshots").is_dir())
    if cache in (resolved, *resolved.parents) or any((folder / "blobs").is_dir() for folder in repositories):
        raise ExportError(
            f"the output {target} lies in the Hugging Face cache, whose folders are copies of what the hub holds; "
            "choose another folder"
        )


def _refuse_unwritable(target: Path) -> None:
    """Refuse an output that cannot be made, before anything is computed for it."""
    try:
        parent = _existing_parent(target)
    except OSError as error:
        raise ExportError(f"the output {target} cannot be made: {error.strerror}; choose another folder") from None
    if parent == Path(os.path.realpath(target)) and not parent.is_dir():
        raise ExportError(f"the output {target} is a file; choose a new or empty folder")
    if not parent.is_dir():
        raise ExportError(f"the output {target} cannot be made: {parent} is a file; choose another folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ExportError(f"the output {target} cannot be made: {parent} may not be written; choose another folder")


def _existing_parent(path: Path) -> Path:
    """Return the nearest path above an output, or its own, that exists already."""
    resolved = Path(os.path.realpath(path))
    while True:
        try:
            resolved.stat()
            return resolved
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            resolved = resolved.parent
