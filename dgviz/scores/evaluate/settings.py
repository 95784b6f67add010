"""What decides a score: the content of the checkpoint, the task's files and the settings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgviz.checkpoint import Checkpoint, content_hash
from dgviz.errors import EvaluationError

# Files beside the weights that a loaded model depends on.
_SIDECARS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.py",
)
# Where a file was written, and by what: no part of what a model is.
_PROVENANCE = ("_name_or_path", "name_or_path", "transformers_version")


@dataclass(frozen=True)
class Settings:
    """How a checkpoint is scored.

    Attributes
    ----------
    limit : int or None
        Only so many examples of every task; for trying out.
    shots : int or None
        Worked examples before the question; None leaves it to the task.
    task_path : Path or None
        Folder of task files of one's own.
    batch_size : str
        A number, or ``auto``.
    device : str
        ``auto``, ``cpu``, ``cuda:1`` ...
    chat : bool
        Whether questions are put through the tokenizer's chat template.
    model_args, generation : mapping of str to str
        What the harness's model and its generation take beside, as JSON where it is no text: ``{"dtype": "bfloat16",
        "enforce_eager": "true"}``, ``{"temperature": "0"}``.
    """

    limit: int | None = None
    shots: int | None = None
    task_path: Path | None = None
    batch_size: str = "1"
    device: str = "auto"
    chat: bool = False
    model_args: Mapping[str, str] = field(default_factory=dict)
    generation: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("shots", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise EvaluationError(f"--{name} is {value}: give a whole number from {least} on, or leave it out")
        if self.batch_size != "auto" and not (self.batch_size.isdecimal() and int(self.batch_size) > 0):
            raise EvaluationError(f"--batch-size is {self.batch_size!r}: give a whole number from 1 on, or auto")
        if self.task_path is not None and not self.task_path.is_dir():
            raise EvaluationError(f"there is no folder of tasks {self.task_path}: name the one with your task files")

    def values_of(self, name: str) -> dict[str, Any]:
        """Return `model_args` or `generation` as values.

        Parameters
        ----------
        name : str
            Which.
        """
        return {key: _value(text) for key, text in getattr(self, name).items()}


def _value(text: str) -> Any:
    """Return what a text is as JSON, also with Python's capitals; else the text."""
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:
        return text


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of a checkpoint's tensors, configuration and tokenizer, whatever its folder is called.

    Parameters
    ----------
    checkpoint : Checkpoint
        Opened; its tensors are read unless their hashes are remembered.

    Raises
    ------
    CheckpointError
        If a file cannot be read.
    """
    files = sorted({file for pattern in _SIDECARS for file in checkpoint.path.glob(pattern) if file.is_file()})
    tensors = [f"{name}:{content_hash(tensor)}\n" for name, tensor in sorted(checkpoint.tensors.items())]
    sidecars = [f"{file.name}:{_sha256(_without_provenance(file))}\n" for file in files]
    return _sha256("".join(tensors + sidecars).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _without_provenance(file: Path) -> bytes:
    """Return a file's bytes; of JSON without the fields that say where it came from."""
    content = file.read_bytes()
    try:
        value = json.loads(content) if file.suffix == ".json" else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return content
    return json.dumps({k: v for k, v in value.items() if k not in _PROVENANCE}, sort_keys=True).encode()


def folder_hash(folder: Path | None) -> str:
    """Return the SHA-256 of all files in a folder, by relative path and content; empty without a folder."""
    if folder is None:
        return ""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and "__pycache__" not in file.parts]
    return _sha256("".join(f"{file.relative_to(folder)}:{file_hash(file)}\n" for file in files).encode())


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def task_key(content: str, backend: str, version: str, task: str, settings: Settings) -> str:
    """Return what a task's scores are remembered under."""
    parts: dict[str, Any] = {
        "checkpoint": content,
        "backend": backend,
        "version": version,
        "task": task,
        "limit": settings.limit,
        "shots": settings.shots,
        "chat": settings.chat,
        "task_files": folder_hash(settings.task_path),
    }
    parts |= {name: given for name in ("model_args", "generation") if (given := settings.values_of(name))}
    return _sha256(json.dumps(parts, sort_keys=True).encode())
