"""What a checkpoint says it was made from, and whether that is the other side: in its config, card or adapter."""

import re
from pathlib import Path

from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, parse_json_object, read_document
from dgviz.checkpoint.types import WARNING, Checkpoint, CheckpointPair, Notice
from dgviz.errors import CheckpointError

_STATES = ("trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt")
"""What a training run leaves beside the model it made."""
_BASE_MODEL = re.compile(r"^base_model:[ \t]*(?:\n[ \t]*-[ \t]*)?([^\s\[\]{}|>]+)", re.MULTILINE)


def find_ancestry(pair: CheckpointPair) -> list[Notice]:
    """Tell of sides that look swapped, and of an adapter that names another base."""
    base, tuned = pair.base, pair.tuned
    if tuned.is_adapter:
        named = _adapter_base(tuned.path)
        if not named or _last(named) in map(_last, _called(base)):
            return []
        message = f"The adapter was trained on {named}, by its config, and base is {_called(base)[0]}."
        remedy = "Right where the two are one model under two names. Otherwise give the model that the adapter names."
        return [Notice("other_base", WARNING, message, remedy)]
    theirs = next((name for name in _parents(base) if name in _called(tuned)), None)
    left = next((name for name in _STATES if (base.path / name).is_file()), None)
    if theirs is None and (left is None or any((tuned.path / name).is_file() for name in _STATES)):
        return []
    why = f"names {theirs}, which is tuned, as what it was made from" if theirs else f"has a training run's {left}"
    message = f"The two sides may be swapped: base ({base.path}) {why}."
    remedy = "Give the model before fine-tuning as base and the one after it as tuned."
    return [Notice("swapped", WARNING, message, remedy)]


def _called(checkpoint: Checkpoint) -> list[str]:
    """Return what a checkpoint may be called: its hub id in the cache, its path, its folder."""
    cached = [folder.name for folder in checkpoint.path.parents if folder.name.startswith("models--")]
    ids = [name.removeprefix("models--").replace("--", "/") for name in cached]
    return [*ids, str(checkpoint.path), checkpoint.path.name]


def _parents(checkpoint: Checkpoint) -> list[str]:
    """Return what a checkpoint's config and card say it was made from; paths as they are resolved here."""
    named = [checkpoint.config.get("_name_or_path")]
    try:
        card = read_document(checkpoint.path / "README.md", MAX_CONFIG_BYTES, "card").decode("utf-8", "replace")
        named += _BASE_MODEL.findall(card.split("\n---", 1)[0])
    except (CheckpointError, OSError):
        pass  # no card, or none to be trusted
    texts = [name.strip("'\"") for name in named if isinstance(name, str) and name]
    return [*texts, *(str(Path(name).resolve()) for name in texts if Path(name).is_dir())]


def _adapter_base(directory: Path) -> str:
    """Return what an adapter's config calls its base; empty where it does not say."""
    file = directory / "adapter_config.json"
    try:
        named = parse_json_object(read_document(file, MAX_CONFIG_BYTES, "config"), str(file))
    except (CheckpointError, OSError):
        return ""
    return str(named.get("base_model_name_or_path") or "")


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()
