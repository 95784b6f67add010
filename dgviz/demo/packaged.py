"""The demo's files: where they lie in the package, and writing them out elsewhere."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dgviz.command import Command
from dgviz.errors import CheckpointError, ExportError
from dgviz.opening import read_named

CHECKPOINTS = Path(__file__).parent / "checkpoints"
FINE_TUNES = ("clean", "noisy")
MODELS = ("base", *FINE_TUNES)
SCORES = "scores.json"
FRONTIER = "frontier.json"
_MODEL_FILES = ("config.json", "model.safetensors")
_MOST = 10_000_000  # bytes of a table, which has some tens of thousands


def demo_files(directory: str | Path) -> dict[str, Path]:
    """Return where a demo directory holds its three checkpoints, its scores and its frontier.

    Parameters
    ----------
    directory : str or Path
        Written by `write_demo`, `score_demo` or `train_demo`; not looked at.

    Returns
    -------
    dict
        ``base``, ``clean``, ``noisy`` (directories), ``scores`` and ``frontier`` (files).
    """
    folder = Path(directory).expanduser()
    return {**{model: folder / model for model in MODELS}, "scores": folder / SCORES, "frontier": folder / FRONTIER}


def demo_paths() -> dict[str, Path]:
    """Return the packaged checkpoint directories: ``base``, ``clean`` and ``noisy``.

    Raises
    ------
    CheckpointError
        If the installation lacks one of their files.
    """
    for relative in _demo_file_names():
        if not (CHECKPOINTS / relative).is_file():
            raise CheckpointError(
                f"the demo's {relative.as_posix()} is missing from {CHECKPOINTS}: install dgviz again, "
                f"or make the demo anew by `{Command('demo', directory='DIR', train=True)}`"
            )
    return {model: CHECKPOINTS / model for model in MODELS}


def read_scores(directory: str | Path) -> dict[str, Any] | None:
    """Return the scores that lie in a demo directory, or None where there is no ``scores.json``.

    Parameters
    ----------
    directory : str or Path
        The folder that holds the checkpoint directories.

    Returns
    -------
    dict or None
        ``scores`` is a list of rows ``{"model", "benchmark", "score", "stderr", "n"}``, scores as shares of 1;
        ``benchmarks`` and ``models`` say what the names mean; see `dgviz.demo.scores.build_scores`.

    Raises
    ------
    CheckpointError
        If the file is there but is no table of scores.
    """
    columns = ("model", "benchmark", "score", "stderr", "n")
    what = f"list 'scores' of rows with {', '.join(columns)}"
    return _load_table(demo_files(directory)["scores"], lambda content: content.get("scores"), columns, what)


def demo_scores() -> dict[str, Any]:
    """Return the packaged scores of the base, the fine-tunes and their repairs, as `read_scores` does.

    Raises
    ------
    CheckpointError
        If the installation lacks the file.
    """
    demo_paths()
    return read_scores(CHECKPOINTS)


def read_frontier(directory: str | Path | None = None) -> dict[str, Any] | None:
    """Return what a sweep of every method over both fine-tunes found, or None where there is no ``frontier.json``.

    Parameters
    ----------
    directory : str or Path, optional
        The folder that holds the checkpoint directories; by default the packaged one.

    Returns
    -------
    dict or None
        For ``clean`` and ``noisy``: ``ends``, the scores of ``base`` and ``tuned``, and ``lines`` as
        `sweep_result` has them. Scores are ``{"held_out", "target": {"score", "stderr", "n"}}``, shares
        of 1.

    Raises
    ------
    CheckpointError
        If the file is there but is no such table, or the installation lacks it.
    """
    if directory is None:
        demo_paths()
    path = demo_files(CHECKPOINTS if directory is None else directory)["frontier"]
    what = "'ends' and 'lines' for every fine-tune"
    return _load_table(path, lambda content: list(content.values()), ("ends", "lines"), what)


def _load_table(
    path: Path, find_rows: Callable[[dict[str, Any]], Any], columns: Iterable[str], what: str
) -> dict[str, Any] | None:
    """Return one of the demo's tables, None where there is none; refuse one whose rows lack a column."""
    if not path.is_file():
        return None
    remedy = f"delete it, or write the demo out again by `{Command('demo', directory='DIR')}`"
    try:
        content = json.loads(read_named(path, _MOST))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}): {remedy}") from error
    rows = find_rows(content) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= set(columns) for row in rows):
        raise CheckpointError(f"{path} has no {what}: {remedy}")
    return content


def write_demo(directory: str | Path) -> dict[str, Path]:
    """Copy the packaged checkpoints, scores and frontier into a directory and return where they are.

    Parameters
    ----------
    directory : str or Path
        New, empty, or holding nothing but files of this same demo; missing ones are added.

    Returns
    -------
    dict
        As `demo_files`.

    Raises
    ------
    ExportError
        If the directory holds anything else, or cannot be written.
    CheckpointError
        If the installation lacks a file.
    """
    demo_paths()
    target = Path(directory).expanduser()
    names = _demo_file_names()
    with _write_errors(target):
        if not _is_empty(target):
            for path in sorted(path for path in target.rglob("*") if not path.is_dir()):
                relative = path.relative_to(target)
                if relative not in names or path.read_bytes() != (CHECKPOINTS / relative).read_bytes():
                    raise ExportError(
                        f"{target} is not empty and {relative} in it is not a file of this demo: choose a new or "
                        "empty directory"
                    )
            copy_packaged((name for name in names if not (target / name).exists()), target)
            return demo_files(target)
    with new_directory(target) as unfinished:
        copy_packaged(names, unfinished)
    return demo_files(target)


def copy_packaged(names: Iterable[Path], directory: Path) -> None:
    """Copy some of the packaged files into a directory."""
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKPOINTS / name, directory / name)


def checkpoint_files() -> list[Path]:
    """Return the files of the three checkpoints, relative to the demo's directory."""
    return [Path(model, name) for model in MODELS for name in _MODEL_FILES]


@contextlib.contextmanager
def new_directory(directory: str | Path) -> Iterator[Path]:
    """Give a hidden folder to write into, whose content appears in `directory` when all of it is written."""
    target = Path(directory).expanduser()
    with _write_errors(target):
        if not _is_empty(target):
            found = sorted(path.name for path in target.iterdir())
            raise ExportError(f"{target} is not empty (it holds {found[0]}): choose a new or empty directory")
        target.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target))
        try:
            yield unfinished
            for path in sorted(unfinished.iterdir()):
                path.rename(target / path.name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _demo_file_names() -> list[Path]:
    """Return the demo's files, relative to its directory."""
    return [*checkpoint_files(), Path(SCORES), Path(FRONTIER)]


def _is_empty(target: Path) -> bool:
    """Return whether a directory is absent or empty; refuse a path that is a file."""
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target} is a file, not a directory: choose a new or empty directory")
    return not target.exists() or next(target.iterdir(), None) is None


@contextlib.contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    """Turn the file system's refusals into one sentence."""
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"cannot write the demo to {target}: {error.strerror or error}; choose a directory on a disk with room "
            "that you may write to"
        ) from error
