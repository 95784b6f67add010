"""The export plan: what will be written where, computed and checked before any byte is written."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from dgviz.checkpoint import CheckpointPair, PairedTensor
from dgviz.checkpoint.documents import refuse_stray_link
from dgviz.errors import ExportError
from dgviz.export.shard import ITEM_BYTES, shard_order
from dgviz.plan import RepairPlan

MANIFEST = ".dgviz-export.json"
LOCK = ".dgviz-export.lock"
_ROW_BYTES = 4096  # disk kept free per tensor for header, index and report
REPORT = "dgviz.json"

# What transformers and vLLM read besides weights. Never copied: *.py (code), trainer state, an old index, a README.
SIDECARS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "sentencepiece*.model",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates/*",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
    "feature_extractor_config.json",
    "LICENSE*",
    "NOTICE*",
)


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
        Bytes of all tensors.
    free_bytes : int
        Free disk where the output goes.
    finished : frozenset of str
        Shards an earlier, unfinished run of the same plan completed.
    warnings : tuple of str
        Sentences for the user.
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

    @property
    def index_name(self) -> str | None:
        """Name of the index to write: none for one ``model.safetensors``, or one file that the config names."""
        named = self.pair.tuned.config.get("transformers_weights")
        if isinstance(named, str) and named.endswith(".index.json"):
            return named
        if len(self.shards) == 1 and self.shards[0].name in ("model.safetensors", named):
            return None
        return "model.safetensors.index.json"

    @property
    def identity(self) -> str:
        """Hash of inputs and options: two runs with the same identity write the same bytes."""
        return plan_identity(self.pair, self.repair)

    def written_bytes(self, name: str) -> int:
        """Return the bytes one tensor takes in the output; 0 for one that is not written.

        Parameters
        ----------
        name : str
            A tensor of the pair.
        """
        info = self.pair[name].tuned
        return 0 if info is None else info.numel * ITEM_BYTES[self.repair.output_dtype(info)]


def plan_identity(pair: CheckpointPair, repair: RepairPlan) -> str:
    """Return the hash of what decides every output byte: both inputs and the repair plan.

    Parameters
    ----------
    pair : CheckpointPair
        The inputs.
    repair : RepairPlan
        The options.
    """
    content = {"base": pair.base.fingerprint, "tuned": pair.tuned.fingerprint, "plan": repair.to_json()}
    return hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def plan_export(pair: CheckpointPair, repair: RepairPlan, out: str | Path) -> ExportPlan:
    """Return what an export will write, or say why it cannot be written.

    Parameters
    ----------
    pair : CheckpointPair
        Base and tuned, every tensor with its fate.
    repair : RepairPlan
        Rule and output dtype.
    out : str or Path
        Output directory; created when absent.

    Raises
    ------
    ExportError
        If the output is, contains or lies in an input; is not empty (unless it holds an unfinished export of the same
        plan); is a file; or the disk has too little room.
    PairError
        If something blocks a repair of the pair.
    """
    pair.refuse_blocked()
    if not str(out).strip():
        raise ExportError("the output folder has no name; give a new or empty folder")
    target = Path(out).expanduser()
    _refuse_overlap(target, pair)
    finished = finished_shards(target, plan_identity(pair, repair))
    by_shard: dict[str, list[PairedTensor]] = {name: [] for name in pair.tuned.shards}
    for paired in pair.tensors:
        if paired.tuned is not None:
            by_shard[paired.tuned.file.name].append(paired)
    shards = tuple(_shard_plan(_safetensors_name(name), tensors, repair) for name, tensors in by_shard.items())
    sidecars, warnings = _find_sidecars(pair)
    total = sum(shard.nbytes for shard in shards)
    free = shutil.disk_usage(_existing_parent(target)).free
    left = sum(shard.nbytes for shard in shards if shard.name not in finished)
    left += sum(source.stat().st_size for _, _, source in sidecars) + _ROW_BYTES * len(pair.tensors)
    if left > free:
        raise ExportError(
            f"{target} needs {left / 2**20:,.1f} MiB and the disk has {free / 2**20:,.1f} MiB free; "
            "free some space or choose another output"
        )
    return ExportPlan(pair, repair, target, shards, sidecars, total, free, finished, warnings)


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
    """Refuse an output that is, contains or lies in an input, or whose path is taken by a file."""
    resolved = Path(os.path.realpath(target))
    for side, checkpoint in (("base", pair.base), ("tuned", pair.tuned)):
        source = checkpoint.path.resolve()
        relation = None
        if resolved == source:
            relation = "is"
        elif source in resolved.parents:
            relation = "lies inside"
        elif resolved in source.parents:
            relation = "contains"
        if relation:
            raise ExportError(
                f"the output {target} {relation} the {side} checkpoint {checkpoint.path}; choose another folder"
            )
    if target.exists() and not target.is_dir():
        raise ExportError(f"the output {target} is a file; choose a new or empty folder")


def finished_shards(target: Path, identity: str) -> frozenset[str]:
    """Return the shards an unfinished export of a plan left complete; refuse any other content.

    Parameters
    ----------
    target : Path
        Output directory, there or not.
    identity : str
        From `plan_identity`.

    Raises
    ------
    ExportError
        If the directory holds anything else.
    """
    if not target.is_dir():
        return frozenset()
    names = sorted(path.name for path in target.iterdir() if path.name not in (LOCK, f"{MANIFEST}.partial"))
    if not names:
        return frozenset()
    manifest = read_manifest(target)
    if manifest is None:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise ExportError(f"the output {target} is not empty (it holds {shown}); choose a new or empty folder")
    if not manifest["shards"] and all(name == MANIFEST or name.endswith(".partial") for name in names):
        return frozenset()  # an earlier run ended before its first shard: nothing of it would be lost
    if manifest["identity"] != identity:
        raise ExportError(
            f"the output {target} holds an unfinished export of other inputs or options; "
            "repeat that command to finish it, or choose a new folder"
        )
    return frozenset(manifest["shards"])


def read_manifest(target: Path) -> Mapping[str, Any] | None:
    """Return the manifest of an unfinished export, or None.

    Parameters
    ----------
    target : Path
        Output directory.

    Raises
    ------
    ExportError
        If there is one and it cannot be read.
    """
    path = target / MANIFEST
    try:
        manifest = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise ExportError(f"{path} cannot be read ({error}); delete the folder and export again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), dict) or "identity" not in manifest:
        raise ExportError(f"{path} is not what an export leaves; delete the folder and export again")
    return manifest


def _find_sidecars(pair: CheckpointPair) -> tuple[tuple[tuple[str, str, Path], ...], tuple[str, ...]]:
    """Return the other files a model needs, from tuned, or from base where tuned has none of that kind."""
    found: list[tuple[str, str, Path]] = []
    warnings: list[str] = []
    for pattern in SIDECARS:
        for side, checkpoint in (("tuned", pair.tuned), ("base", pair.base)):
            files = [path for path in sorted(checkpoint.path.glob(pattern)) if _is_sidecar(path)]
            if files:
                found += [(path.relative_to(checkpoint.path).as_posix(), side, path) for path in files]
                if side == "base":
                    names = ", ".join(path.name for path in files)
                    warnings.append(f"{names} copied from base: tuned has none")
                break
    names = {name for name, _, _ in found}
    if "config.json" not in names:
        warnings.append("neither checkpoint has a config.json: transformers cannot load the output without one")
    if any("auto_map" in checkpoint.config for checkpoint in (pair.tuned, pair.base)):
        warnings.append("the config refers to code of its own (auto_map); *.py files are not copied")
    return tuple(dict.fromkeys(found)), tuple(warnings)


def _is_sidecar(path: Path) -> bool:
    """Return whether a file that matches a pattern is safe to carry: no code, no weights; no link to elsewhere."""
    refuse_stray_link(path)
    return path.is_file() and path.suffix not in (".py", ".safetensors", ".bin", ".pt", ".pth")


def _existing_parent(path: Path) -> Path:
    """Return the nearest directory above an output that exists already."""
    resolved = Path(os.path.realpath(path))
    while not resolved.exists():
        resolved = resolved.parent
    return resolved
