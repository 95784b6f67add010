"""The report as one HTML file: what is read is in the text, whether or not scripts run."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import dgviz
from dgviz.analysis.figures import FIGURES
from dgviz.analysis.lens import BESIDE_NOISE
from dgviz.analysis.model_report import ModelReport
from dgviz.errors import ExportError, printable
from dgviz.figures.report.pictures import ReportFigure
from dgviz.rmt.diagnosis import VERDICTS
from dgviz.rmt.threshold import find_rule
from dgviz.table import Table
from dgviz.words import number, size

MOST_BYTES = 5 * 2**20
"""A report fits into a mail."""

_STYLE, _SCRIPT = (Path(__file__).with_name(f"report.{suffix}") for suffix in ("css", "js"))
_ROWS = 300  # of a table that are shown
_LINKED = 250_000  # bytes of a table that the page carries as CSV
_ABOUT = {
    "groups": ("By group", "Weights by class and by third of the depth; percentages are of the group."),
    "weights": ("Weight by weight", "Every matrix, percentages from 0 to 100; its CSV has all figures."),
    "noise": ("Noise", "How much of the update the rule drops, by class of weight and by depth; shares from 0 to 1."),
    "lens": (
        "Through the vocabulary",
        "The strongest directions that are kept and dropped, as the tokens of base at their two ends (which is which "
        "is free); z says by how many standard deviations the strongest token stands out. A direction whose z 19 in "
        "20 random ones stay below reads as noise, whatever its tokens seem to say.",
    ),
    "tensors": ("What happens to every tensor", "Repaired, kept as tuned has it, or not written, and why."),
    "recovery": ("Evidence: what repairs healed and preserved", "Percent, the 95 % interval in brackets."),
    "benchmarks": (
        "Evidence: every benchmark",
        "Raw scores of base, tuned and repaired models, standard errors in brackets.",
    ),
}
_COLUMNS = {
    "weights": (
        *("weight", "rows", "columns", "rank", "tau", "edge", "energy_kept", "relative_size", "mp_fit", "noise_fit"),
        "verdict",
    )
}
"""Of a table with more than a page has room for."""
_WORDS = {*VERDICTS.values(), "kept", "dropped", *BESIDE_NOISE}  # of one line
_MARKS = {"applies": "good", "care": "care", "no_effect": "none", "not_applicable": "bad"}


def report_page(report: ModelReport, figures: Sequence[ReportFigure], different: Sequence[Table] = ()) -> str:
    """Return a report as an HTML document.

    Parameters
    ----------
    report : ModelReport
        What it is about.
    figures : sequence of ReportFigure
        Its figures, in order.
    different : sequence of Table
        What differs from another report (`dgviz.analysis.model_report.differences`).

    Raises
    ------
    ExportError
        If it would be larger than `MOST_BYTES`.
    """
    base, tuned = report.names
    title = f"{tuned} against {base}"
    body = [_head(report, title), _verdict(report), *(_difference(different) if different else [])]
    body += ["<h2>Figures</h2>", *(_figure(figure, place) for place, figure in enumerate(figures))]
    body += ["<h2>Tables</h2>", *(_table(report.tables[name]) for name in _ABOUT if name in report.tables)]
    if report.errors:
        failed = [f"{name}: {error}" for name, error in report.errors.items()]
        more = [f"{len(failed) - _ROWS:,} more"] if len(failed) > _ROWS else []
        body.append(f"<h3>Without figures</h3>{_list([*failed[:_ROWS], *more])}")
    body += [_plan(report), _made(report)]
    script = _SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src 'sha256-{digest}'"
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_words(title)} – dgviz</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(body)}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )
    nbytes = len(page.encode(errors="backslashreplace"))
    if nbytes > MOST_BYTES:
        raise ExportError(
            f"the report would take {size(nbytes)}, more than {size(MOST_BYTES)}, most of it {len(figures)} figures: "
            "name fewer weights by --weight"
        )
    return page


def _words(text: Any) -> str:
    """Return text that may hold names, as HTML."""
    return escape(printable(text))


def _head(report: ModelReport, title: str) -> str:
    about = f"{report.plan.default.title}. {report.preflight.summary}"
    return f'<header><p class="kicker">dgviz report</p><h1>{_words(title)}</h1><p>{_words(about)}</p></header>'


def _verdict(report: ModelReport) -> str:
    """Return the verdict with its reasons, the forecast, and what to do first."""
    found, rows = report.verdict, report.rows
    rule = find_rule(report.plan.rule)
    notices = "".join(
        f'<li class="{notice.severity}">{_words(notice.sentence)}</li>'
        for notice in report.preflight.notices
        if notice.severity != "info"
    )
    kept, energy = sum(row.rank for row in rows), FIGURES["energy_kept"].pool(rows)
    figures = {
        "weights": f"{len(rows):,}",
        "directions kept": f"{kept:,} of {sum(row.spectrum.s.size for row in rows):,}",
        "energy kept": f"{100 if energy is None else energy:.1f} %",
        "nothing kept": f"{sum(row.emptied for row in rows):,}",
        "everything kept": f"{sum(row.unchanged for row in rows):,}",
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items())
    advice = f"<p><strong>What to do first:</strong> {_words(' '.join(found.advice[:2]))}</p>" if found.advice else ""
    return (
        f'<section class="verdict {_MARKS[found.verdict]}"><h2>{_words(rule.title)} {_words(found.word)}</h2>'
        f"<p><strong>What it would do:</strong> {_words(report.forecast.sentence)}</p>{_list(found.reasons)}{advice}"
        f"{_list(found.advice[2:])}<dl>{cells}</dl>" + (f"<ul>{notices}</ul>" if notices else "") + "</section>"
    )


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{_words(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _figure(figure: ReportFigure, place: int) -> str:
    """Return a figure; what its document names is its own in the page."""
    inline = re.sub(r'(\bid="|url\(#)', rf"\1figure{place}-", figure.picture)
    inline = re.sub(r"[\ud800-\udfff]", lambda found: repr(found[0])[1:-1], inline)
    return (
        f'<figure id="{_words(figure.name)}" data-file="{_words(figure.name)}"><h3>{_words(figure.title)}</h3>'
        f'<div class="paper">{inline}</div><figcaption>{_words(figure.caption)}</figcaption></figure>'
    )


def _table(table: Table, title: str = "", about: str = "") -> str:
    """Return a table, as CSV too where it is small."""
    title, about = (title, about) if title else _ABOUT[table.name]
    csv = table.to_csv().encode()
    name, table = table.name, _shown(table)
    head = "".join(f"<th>{_words(column.replace('_', ' '))}</th>" for column in table.columns)
    lines = ["".join(map(_cell, row)) for row in table.rows[:_ROWS]]
    more = len(table) - len(lines)
    told = f"{about} The first {len(lines):,} of {len(table):,} rows; --files writes all." if more else about
    link = ""
    if len(csv) <= _LINKED:
        data = base64.b64encode(csv).decode()
        link = f' <a class="save" download="{name}.csv" href="data:text/csv;base64,{data}">CSV</a>'
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    names = " names" if table.columns[:1] in (("weight",), ("tensor",)) else ""
    return (
        f'<section class="table" id="table-{name.replace(" ", "-")}"><h3>{_words(title)}{link}</h3>'
        f"<p>{_words(told)}</p>"
        f'<div class="wide{names}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _shown(table: Table) -> Table:
    """Return what a page has room for: some columns, verdicts in words, scores beside each other."""
    if table.name == "recovery":
        return _wide(table, "repair", "metric", lambda row: _ranged(row["percent"], row["low"], row["high"]))
    if table.name == "benchmarks":
        rows = [row | {"benchmark": f"{row['cell']}: {row['benchmark']}"} for row in table]
        return _wide(rows, "model", "benchmark", lambda row: _ranged(row["score"], row["stderr"]))
    columns = _COLUMNS.get(table.name, table.columns)
    rows = ({column: row[column] for column in columns} for row in table)
    words = [row | {"verdict": VERDICTS[row["verdict"]]} if "verdict" in row else row for row in rows]
    return Table.of(table.name, words) if words else table


def _wide(rows: Iterable[dict[str, Any]], down: str, across: str, told: Callable[[dict[str, Any]], str]) -> Table:
    """Return a table with a column for each value of one of its columns."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row[down], {})[row[across]] = told(row)
    columns = list(dict.fromkeys(column for own in found.values() for column in own))
    lines = [{down: name} | {column: own.get(column) for column in columns} for name, own in found.items()]
    return Table.of("", lines)


def _ranged(value: float | None, *beside: float | None) -> str:
    """Return a number with what belongs beside it in brackets."""
    known = " to ".join(f"{item:.3g}" for item in beside if item is not None)
    return "" if value is None else f"{value:.3g}" + (f" ({known})" if known else "")


def _cell(value: Any) -> str:
    if isinstance(value, int | float):
        return f'<td class="number">{number(value)}</td>'
    if value in _WORDS:
        return f'<td class="word">{_words(value)}</td>'
    return f"<td>{_words('' if value is None else value)}</td>"


def _difference(tables: Sequence[Table]) -> list[str]:
    """Return what differs from the other report."""
    if not any(tables):
        return ["<h2>What differs</h2><p>Nothing: both reports say the same.</p>"]
    shown = [
        _table(table, table.name.capitalize(), "Here is this report, there the one it is held against.")
        if len(table)
        else f"<p>{_words(table.name.capitalize())}: none.</p>"
        for table in tables
    ]
    return ["<h2>What differs</h2>", *shown]


def _plan(report: ModelReport) -> str:
    """Return the plan: what writes it, and what it treats apart."""
    plan = report.plan
    recipe = plan.recipe
    rule = find_rule(plan.rule)
    parts = [
        f"<p>Method: {_words(recipe.title)}, <code>{_words(recipe.formula)}</code>; {_words(recipe.citation)}</p>"
    ]
    if recipe.thresholded:
        cited = f"; {rule.citation}" if rule.citation else ""
        parts.append(f"<p>Threshold: {_words(rule.title)}, <code>{_words(rule.formula)}</code>{_words(cited)}</p>")
    if plan.overrides:
        parts.append(f"<p>Weights treated apart, later lines winning:</p>{_list(map(str, plan.overrides))}")
    return f"<h2>Plan</h2><section>{''.join(parts)}<pre>{_words(report.command.lasting)}</pre></section>"


def _made(report: ModelReport) -> str:
    """Return what the report was made from."""
    sides = "".join(
        f"<tr><td>{side}</td><td>{_words(found.path.name)}</td><td>{len(found.tensors):,} tensors, "
        f"{size(found.nbytes)}</td><td><code>{_words(found.fingerprint[:16])}</code></td></tr>"
        for side, found in (("base", report.pair.base), ("tuned", report.pair.tuned))
    )
    return (
        f'<footer><h2>Made from</h2><div class="wide"><table><tbody>{sides}</tbody></table></div>'
        f"<p>dgviz {dgviz.__version__}. A repair is chosen by the update's numbers alone; it does not measure what "
        "the model can do. Evaluate the result on your own tasks before it replaces anything.</p></footer>"
    )
