"""Files, folders and uploads of scores, read into one table."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dgviz.errors import ScoresError
from dgviz.scores.harness import is_harness, parse_harness
from dgviz.scores.table import is_table, parse_csv, parse_table
from dgviz.scores.types import ModelRole, ScoreTable

SUFFIXES = ("json", "csv")
# What counts as scores in a folder; anything named outright is read whatever its name.
_IN_FOLDERS = ("results*.json", "scores*.json", "*.csv")


def read_scores(sources: Iterable[str | Path]) -> ScoreTable:
    """Return the scores of files and folders.

    Parameters
    ----------
    sources : iterable of str or Path
        A file (JSON or CSV), a folder (every ``results*.json``, ``scores*.json`` and ``*.csv`` in it and below), or
        ``NAME=PATH``, which gives the model of a harness file or folder a name of one's own.

    Raises
    ------
    ScoresError
        If a path is missing, holds no scores, or a file cannot be read; the message names it.
    """
    tables = []
    for source in sources:
        name, path = _split_name(str(source))
        for file in _files(path):
            try:
                content = file.read_bytes()
            except OSError as error:
                raise ScoresError(f"{file} cannot be read: {error.strerror or error}") from error
            tables.append(parse_scores(content, str(file), name, file.parent.name))
    return merge_tables(tables)


def _split_name(source: str) -> tuple[str, Path]:
    """Return the name given and the path; a path that holds an equals sign itself is one."""
    name, equals, rest = source.partition("=")
    if equals and name and not Path(source).expanduser().exists():
        return name, Path(rest).expanduser()
    return "", Path(source).expanduser()


def _files(path: Path) -> list[Path]:
    """Return the files of scores that a path means."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ScoresError(f"there is no file or folder {path}: name a results file, a CSV, or the folder they are in")
    found = sorted({file for pattern in _IN_FOLDERS for file in path.rglob(pattern) if file.is_file()})
    if not found:
        raise ScoresError(f"{path} holds no scores: looked for {', '.join(_IN_FOLDERS)} in it and below")
    return found


def parse_scores(content: bytes, source: str, model: str = "", folder: str = "") -> ScoreTable:
    """Return the scores of one file's content.

    Parameters
    ----------
    content : bytes
        JSON of the harness, JSON with a list ``scores``, or CSV.
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
    if isinstance(value, dict) and is_table(value):
        return parse_table(value, source)
    if isinstance(value, dict) and is_harness(value):
        return parse_harness(value, source, model, folder)
    raise ScoresError(
        f"{source} is no file of scores: it has neither the harness's 'results' nor a list 'scores'; "
        "name a results_<date>.json, a scores.json or a CSV"
    )


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
    known = list(dict.fromkeys(names))
    result = {}
    for name in known:
        parts = PurePosixPath(name).parts if name[:1] in ("/", "~", ".") else (name,)
        others = [PurePosixPath(other).parts for other in known if other != name]
        wanted = next(
            (size for size in range(1, len(parts)) if all(other[-size:] != parts[-size:] for other in others)),
            None,
        )
        result[name] = name if wanted is None else "/".join(parts[-wanted:])
    return result
