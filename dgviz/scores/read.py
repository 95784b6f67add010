"""Files, folders and uploads of scores, read into one table."""

import fnmatch
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from dgviz.errors import AccessError, ScoresError
from dgviz.opening import read_named
from dgviz.scores.dghard import is_dghard, parse_dghard
from dgviz.scores.harness import is_harness, parse_harness
from dgviz.scores.inspect_log import is_archive, is_inspect, parse_inspect, read_archive
from dgviz.scores.lighteval import is_lighteval, parse_lighteval
from dgviz.scores.table import is_table, parse_csv, parse_table
from dgviz.scores.types import ModelRole, ScoreTable

SUFFIXES = ("json", "csv", "eval")
# What counts as scores in a folder; anything named outright is read whatever its name.
_IN_FOLDERS = ("results*.json", "scores*.json", "*.csv", "*.eval")
_PERHAPS = "*.json"  # in a folder without any of these: whatever JSON is a file of scores
MAX_SCORES_BYTES = 100_000_000
"""Results of a harness have megabytes, a log with every sample of a benchmark some tens of them."""
_LOOKED_AT = 100_000  # files in a folder and below: a folder of results has some hundred


def read_scores(sources: Iterable[str | Path]) -> ScoreTable:
    """Return the scores of files and folders.

    Parameters
    ----------
    sources : iterable of str or Path
        A file (JSON, CSV, or a log of Inspect), a folder (every ``results*.json``, ``scores*.json``, ``*.csv`` and
        ``*.eval`` in it and below; where there is none, every JSON file that has scores), or ``NAME=PATH``, which
        gives the model of a file or folder a name of one's own.

    Raises
    ------
    ScoresError
        If a path is missing, holds no scores, or a file cannot be read; the message names it.
    """
    tables = []
    for source in sources:
        name, path = split_name(str(source))
        for file in _files(path):
            content = read_scores_file(file)
            tables.append(parse_scores(content, str(file), name, file.parent.name))
    return merge_tables(tables)


def read_scores_file(path: str | Path) -> bytes:
    """Return what a file of scores, or what says how to look at them, holds.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    ScoresError
        If it cannot be read, is no regular file, or is larger than any file of scores.
    """
    try:
        return read_named(Path(path).expanduser(), MAX_SCORES_BYTES)
    except (OSError, RuntimeError) as error:  # a home of nobody
        raise ScoresError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def split_name(source: str) -> tuple[str, Path]:
    """Return the name given and the path; a path that holds an equals sign itself is one."""
    name, equals, rest = source.partition("=")
    try:
        if equals and name and not Path(source).expanduser().exists():
            return name, Path(rest).expanduser()
        return "", Path(source).expanduser()
    except (OSError, RuntimeError, ValueError) as error:  # nobody's home, a null byte, a name too long
        raise ScoresError(f"{source} cannot be opened ({error}): give a whole path") from error


def _files(path: Path) -> list[Path]:
    """Return the files of scores that a path means."""
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise ScoresError(f"{path} cannot be opened ({error}): name a file or folder") from error
    if there and not folder:
        return [path]
    if not folder:
        raise ScoresError(f"there is no file or folder {path}: name a results file, a CSV, or the folder they are in")
    try:
        files = sorted(_walk(path))
    except OSError as error:
        raise ScoresError(
            f"{path} cannot be looked through ({error}): name the folder that the scores are in"
        ) from error
    found = [file for file in files if any(fnmatch.fnmatchcase(file.name, pattern) for pattern in _IN_FOLDERS)]
    found = found or [file for file in files if fnmatch.fnmatchcase(file.name, _PERHAPS) and _has_scores(file)]
    if not found:
        raise ScoresError(f"{path} holds no scores: looked for {', '.join(_IN_FOLDERS)} in it and below")
    return found


def _walk(path: Path) -> Iterator[Path]:
    """Yield every regular file in a folder and below."""
    seen = 0
    for folder, folders, names in os.walk(path):
        seen += len(folders) + len(names)
        if seen > _LOOKED_AT:
            raise ScoresError(f"{path} holds more than {_LOOKED_AT:,} files: name the folder that the scores are in")
        yield from (file for file in (Path(folder, name) for name in names) if file.is_file())


def _has_scores(file: Path) -> bool:
    """Return whether a JSON file is one of scores, whatever its name."""
    try:
        value = json.loads(read_scores_file(file))
    except (ScoresError, AccessError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and (is_table(value) or is_harness(value) or is_inspect(value) or is_dghard(value))


def parse_scores(content: bytes, source: str, model: str = "", folder: str = "") -> ScoreTable:
    """Return the scores of one file's content.

    Parameters
    ----------
    content : bytes
        JSON of the harness, of lighteval, of Inspect or of the reference implementation, JSON with a list ``scores``,
        an ``.eval`` archive of Inspect, or CSV.
    source : str
        The file's name: its ending decides, and messages name it.
    model : str
        The name of a harness file's model; by default the file's own.
    folder : str
        The folder the file lies in, for harness files that do not name their model.

    Raises
    ------
    ScoresError
        If it is none of these, or not well formed.
    """
    if is_archive(content):
        content = read_archive(content, source)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScoresError(f"{source} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    if source.lower().endswith(".csv"):
        return parse_csv(text, source)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScoresError(f"{source} cannot be read as JSON ({error}): name a JSON or .csv file of scores") from error
    try:
        table = _parse_object(value, source, model, folder) if isinstance(value, dict) else None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ScoresError(
            f"{source} has a part of another kind than files of scores have ({error}): it is damaged, fetch it again"
        ) from error
    if table is None:
        raise ScoresError(
            f"{source} is no file of scores: it has neither the harness's 'results' nor a list 'scores', and is no "
            "log of Inspect; name a results_<date>.json, a scores.json, an .eval or a CSV"
        )
    return table


def _parse_object(value: dict[str, Any], source: str, model: str, folder: str) -> ScoreTable | None:
    """Return the scores of a JSON object, or None where it is of no known kind."""
    if is_table(value):
        return parse_table(value, source)
    if is_lighteval(value):
        return parse_lighteval(value, source, model, folder)
    if is_harness(value):
        return parse_harness(value, source, model, folder)
    if is_inspect(value):
        return parse_inspect(value, source, model)
    return parse_dghard(value, source, model, folder) if is_dghard(value) else None


def merge_tables(tables: Iterable[ScoreTable]) -> ScoreTable:
    """Return all scores in one table; models named by a path get the shortest end of it that tells them apart.

    Parameters
    ----------
    tables : iterable of ScoreTable
        One per file.

    Raises
    ------
    ScoresError
        If there is none, or two files say different things about one name.
    """
    tables = list(tables)
    if not tables:
        raise ScoresError("no scores were named: give results files, CSV files or folders of them")
    models: dict[str, ModelRole] = {}
    roles: dict[str, str] = {}
    for table in tables:
        for known, said in ((models, table.models), (roles, table.roles)):
            for name, value in said.items():
                if known.setdefault(name, value) != value:
                    raise ScoresError(f"two files say different things about {name}: {known[name]} and {value}")
    scores = [score for table in tables for score in table.scores]
    short = short_names(score.model for score in scores)
    renamed = tuple(replace(score, model=short[score.model]) for score in scores)
    notes = dict.fromkeys(note for table in tables for note in table.notes)
    return ScoreTable(renamed, models, roles, tuple(notes))


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return for every name what to call it: a local path by its last parts, as many as tell it from the others."""
    known = {name: PurePosixPath(name).parts for name in names}
    result = {}
    for name, whole in known.items():
        parts = whole if name[:1] in ("/", "~", ".") else (name,)
        others = [other for one, other in known.items() if one != name]
        wanted = next(
            (size for size in range(1, len(parts)) if all(other[-size:] != parts[-size:] for other in others)),
            None,
        )
        result[name] = name if wanted is None else "/".join(parts[-wanted:])
    return result
