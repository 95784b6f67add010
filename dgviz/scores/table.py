"""Plain tables of scores: CSV with a header, and JSON with a list of rows, as the demo's ``scores.json``."""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from dgviz.errors import ScoresError
from dgviz.scores.types import ModelRole, Score, ScoreTable, count, finite, objects

REQUIRED = ("model", "benchmark", "score")
OPTIONAL = ("stderr", "n", "cell", "metric", "higher_is_better")
_NUMBERS = ("score", "stderr", "n")
_BOOLS = dict.fromkeys(("true", "yes", "1"), True) | dict.fromkeys(("false", "no", "0"), False) | {"": None}


def parse_csv(text: str, source: str) -> ScoreTable:
    """Return the scores of a comma-separated table."""
    try:
        lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True))
    except csv.Error as error:
        raise ScoresError(
            f"{source} cannot be read as CSV ({error}): write one score per line, with a header"
        ) from error
    header = [name.strip().lower() for name in lines[0]] if lines else []
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise ScoresError(
            f"{source} has no column {', '.join(missing)}: its first line is {','.join(header)!r}, "
            f"and must name {', '.join(REQUIRED)} (and may name {', '.join(OPTIONAL)})"
        )
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise ScoresError(f"{source} names the column {doubled[0]} twice: keep one")
    scores = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{source} line {number}"
        if len(cells) != len(header):
            raise ScoresError(
                f"{where} has {len(cells)} values for {len(header)} columns: give every column one value"
            )
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        scores.append(_score(_parsed(row, where), {}, where, source))
    if not scores:
        raise ScoresError(f"{source} holds no score: write one per line under the header")
    unused = [name for name in header if name not in (*REQUIRED, *OPTIONAL)]
    return ScoreTable(tuple(scores), notes=(f"{source}: columns not used: {', '.join(unused)}",) if unused else ())


def _parsed(row: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return a line with its numbers and its truth as values; what is empty is None."""
    parsed: dict[str, Any] = dict(row)
    for column in _NUMBERS:
        text = row.get(column, "")
        try:
            parsed[column] = float(text) if text else None
        except ValueError as error:
            raise ScoresError(f"{where}: {column} is {text!r}: write a number, or leave it empty") from error
        if text and not math.isfinite(parsed[column]):
            raise ScoresError(
                f"{where}: {column} is {text!r}: write a finite number, or leave it empty where there is none"
            )
    higher = row.get("higher_is_better", "")
    return parsed | {"higher_is_better": _BOOLS.get(higher.lower(), higher)}


def is_table(content: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is a table of scores."""
    return isinstance(content.get("scores"), list)


def parse_table(content: Mapping[str, Any], source: str) -> ScoreTable:
    """Return the scores of a JSON table: rows of ``scores``, and what ``models`` and ``benchmarks`` say of names."""
    about = objects(content.get("benchmarks"))
    scores = []
    for number, row in enumerate(content["scores"]):
        where = f"{source} scores[{number}]"
        if not isinstance(row, dict) or not {*REQUIRED} <= row.keys():
            raise ScoresError(f"{where} is no row with {', '.join(REQUIRED)}: every score needs these")
        for column in _NUMBERS:
            if row.get(column) is not None and finite(row[column]) is None:
                raise ScoresError(f"{where}: {column} is {row[column]!r}: write a finite number, or null")
        scores.append(_score(row, about.get(str(row["benchmark"]), {}), where, source))
    if not scores:
        raise ScoresError(f"{source} holds no score: its list 'scores' is empty")
    roles = {name: str(row["role"]) for name, row in about.items() if isinstance(row.get("role"), str)}
    models = {name: _role(name, row) for name, row in objects(content.get("models")).items() if row.get("role")}
    return ScoreTable(tuple(scores), models, roles)


def _score(row: Mapping[str, Any], about: Mapping[str, Any], where: str, source: str) -> Score:
    """Return one row's score; what it does not say itself, its benchmark's description may."""
    higher = row.get("higher_is_better", about.get("higher_is_better"))
    if higher is not None and not isinstance(higher, bool):
        raise ScoresError(f"{where}: higher_is_better is {higher!r}: write true or false")
    n, stderr = row.get("n"), finite(row.get("stderr"))
    if n is not None and count(n) is None:
        raise ScoresError(f"{where}: n is {n:g}: write how many examples were scored, a whole number from 1 on")
    for column in ("model", "benchmark"):
        if not row[column]:
            raise ScoresError(f"{where} names no {column}: every score needs one")
    if stderr is not None and stderr < 0:
        raise ScoresError(f"{where}: stderr is {stderr:g}: a standard error is not negative")
    return Score(
        model=str(row["model"]),
        benchmark=str(row["benchmark"]),
        value=finite(row["score"]),
        stderr=stderr,
        n=count(n),
        cell=str(row.get("cell") or ""),
        metric=str(row.get("metric") or about.get("metric") or ""),
        higher_is_better=higher,
        source=source,
    )


def _role(name: str, row: Mapping[str, Any]) -> ModelRole:
    """Return what a file says of a model; a repair's label is its name without that of the model it repairs."""
    tuned = str(row.get("tuned") or "")
    return ModelRole(
        role=str(row["role"]),
        base=str(row.get("base") or ""),
        tuned=tuned,
        label=name.removeprefix(f"{tuned}/") if row["role"] == "repaired" else "",
        family=str(row.get("method") or ""),
        control=row.get("control") is True,
    )
