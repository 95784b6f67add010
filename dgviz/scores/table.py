"""Plain tables of scores: CSV with a header, and JSON with a list of rows, as the demo's ``scores.json``."""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from dgviz.errors import ScoresError
from dgviz.scores.types import ModelRole, Score, ScoreTable, count, finite

REQUIRED = ("model", "benchmark", "score")
OPTIONAL = ("stderr", "n", "cell", "metric", "higher_is_better")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


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
        scores.append(_score_of_text(dict(zip(header, (cell.strip() for cell in cells), strict=True)), where, source))
    if not scores:
        raise ScoresError(f"{source} holds no score: write one per line under the header")
    unused = [name for name in header if name not in (*REQUIRED, *OPTIONAL)]
    return ScoreTable(tuple(scores), notes=(f"{source}: columns not used: {', '.join(unused)}",) if unused else ())


def _score_of_text(row: Mapping[str, str], where: str, source: str) -> Score:
    """Return one line's score."""
    stderr, n = _number(row, "stderr", where), _number(row, "n", where)
    higher = row.get("higher_is_better", "").lower()
    if higher not in ("", *_TRUE, *_FALSE):
        raise ScoresError(f"{where}: higher_is_better is {row['higher_is_better']!r}: write true or false")
    return _checked(
        Score(
            model=row["model"],
            benchmark=row["benchmark"],
            value=_number(row, "score", where),
            stderr=stderr,
            n=None if n is None else _whole(n, where),
            cell=row.get("cell", ""),
            metric=row.get("metric", ""),
            higher_is_better=higher in _TRUE if higher else None,
            source=source,
        ),
        where,
    )


def _number(row: Mapping[str, str], column: str, where: str) -> float | None:
    """Return a column's number, or None where it is empty."""
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise ScoresError(f"{where}: {column} is {text!r}: write a number, or leave it empty") from error
    if not math.isfinite(value):
        raise ScoresError(
            f"{where}: {column} is {text!r}: write a finite number, or leave it empty where there is none"
        )
    return value


def _whole(value: float, where: str) -> int:
    """Return a number of examples."""
    n = count(value)
    if n is None:
        raise ScoresError(f"{where}: n is {value:g}: write how many examples were scored, a whole number from 1 on")
    return n


def _checked(score: Score, where: str) -> Score:
    """Return a score with names and a standard error that can be."""
    for column in ("model", "benchmark"):
        if not getattr(score, column):
            raise ScoresError(f"{where} names no {column}: every score needs one")
    if score.stderr is not None and score.stderr < 0:
        raise ScoresError(f"{where}: stderr is {score.stderr:g}: a standard error is not negative")
    return score


def is_table(content: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is a table of scores."""
    return isinstance(content.get("scores"), list)


def parse_table(content: Mapping[str, Any], source: str) -> ScoreTable:
    """Return the scores of a JSON table: rows of ``scores``, and what ``models`` and ``benchmarks`` say of names."""
    about = {name: row for name, row in _objects(content.get("benchmarks")).items()}
    scores = []
    for number, row in enumerate(content["scores"]):
        where = f"{source} scores[{number}]"
        if not isinstance(row, dict) or not {*REQUIRED} <= row.keys():
            raise ScoresError(f"{where} is no row with {', '.join(REQUIRED)}: every score needs these")
        scores.append(_score_of_object(row, about.get(str(row["benchmark"]), {}), where, source))
    if not scores:
        raise ScoresError(f"{source} holds no score: its list 'scores' is empty")
    roles = {name: str(row["role"]) for name, row in about.items() if isinstance(row.get("role"), str)}
    models = {name: _role(name, row) for name, row in _objects(content.get("models")).items() if row.get("role")}
    return ScoreTable(tuple(scores), models, roles)


def _objects(value: Any) -> dict[str, dict[str, Any]]:
    """Return the objects of a JSON object that may be absent."""
    return {key: row for key, row in value.items() if isinstance(row, dict)} if isinstance(value, dict) else {}


def _score_of_object(row: Mapping[str, Any], about: Mapping[str, Any], where: str, source: str) -> Score:
    """Return one row's score; what it does not say itself, its benchmark's description may."""
    for column in ("score", "stderr", "n"):
        if row.get(column) is not None and finite(row[column]) is None:
            raise ScoresError(f"{where}: {column} is {row[column]!r}: write a finite number, or null")
    higher = row.get("higher_is_better", about.get("higher_is_better"))
    if higher is not None and not isinstance(higher, bool):
        raise ScoresError(f"{where}: higher_is_better is {higher!r}: write true or false")
    return _checked(
        Score(
            model=str(row["model"] or ""),
            benchmark=str(row["benchmark"] or ""),
            value=finite(row["score"]),
            stderr=finite(row.get("stderr")),
            n=None if row.get("n") is None else _whole(row["n"], where),
            cell=str(row.get("cell") or ""),
            metric=str(row.get("metric") or about.get("metric") or ""),
            higher_is_better=higher,
            source=source,
        ),
        where,
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
