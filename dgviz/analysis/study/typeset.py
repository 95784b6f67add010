"""A table as CSV, LaTeX and Markdown: the same entries, marked as each form can."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dgviz.analysis.study.marks import BEST, SECOND, Entry
from dgviz.analysis.study.tables import PaperTable
from dgviz.errors import ScoresError
from dgviz.files import csv_text, write_file

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}

_LONG = 30  # rows of a table of LaTeX from which on it is set small, to stand on one page


def typeset(table: PaperTable, form: str) -> str:
    """Return a table in one of `FORMS`.

    Parameters
    ----------
    table : PaperTable
        From `paper_tables`.
    form : str
        ``csv``: full numbers, what is missing in words, a column of marks behind each column that has some.
        ``tex``: a float with booktabs, best in bold, second underlined. ``md``: the same as a table of Markdown.
    """
    return FORMS[form](table)


def _csv(table: PaperTable) -> str:
    marked = [any(entries[i].mark for _, entries in table.rows) for i in range(len(table.columns))]
    blocks = [table.block] if table.block else []
    titles = [[name, f"{name}: mark"] if has else [name] for name, has in zip(table.columns, marked, strict=True)]
    rows = []
    for block, entries in table.rows:
        cells = [
            [entry.why if entry.value is None else entry.value, *([entry.mark] if has else [])]
            for entry, has in zip(entries, marked, strict=True)
        ]
        rows.append([*([block] if blocks else []), *itertools.chain(*cells), *([table.said] if table.said else [])])
    return csv_text([*blocks, *itertools.chain(*titles), *(["note"] if table.said else [])], rows)


def latex_text(text: str) -> str:
    """Return text with what LaTeX would read as a command escaped, on one line."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def markdown_text(text: str) -> str:
    """Return text with what Markdown would read as its own escaped, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|~])", r"\\\1", " ".join(text.split()))


def _marked(entry: Entry, escape: Callable[[str], str], signs: dict[str, str]) -> str:
    """Return an entry with its mark put around it."""
    return signs.get(entry.mark, "{}").replace("{}", escape(str(entry)))


def _blocks(table: PaperTable) -> Iterator[tuple[str, list[tuple[Entry, ...]]]]:
    """Yield every block with its rows."""
    for block, rows in itertools.groupby(table.rows, key=lambda row: row[0]):
        yield block, [entries for _, entries in rows]


def _latex(table: PaperTable) -> str:
    width = len(table.columns)
    signs = {BEST: r"\textbf{{}}", SECOND: r"\underline{{}}"}
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        *([r"\scriptsize"] if len(table.rows) > _LONG else []),
        rf"\caption{{{latex_text(f'{table.title} ({table.said})' if table.said else table.title)}}}",
        rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', table.name.lower())}}}",
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\toprule",
        " & ".join(map(latex_text, table.columns)) + r" \\",
    ]
    for block, rows in _blocks(table):
        lines.append(r"\midrule")
        if table.block:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{latex_text(block)}}}}} \\")
        lines += [" & ".join(_marked(entry, latex_text, signs) for entry in row) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        lines.append(rf"\par\footnotesize {latex_text('. '.join(map(_sentence, table.notes)))}.")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:].rstrip(".")


def _markdown(table: PaperTable) -> str:
    signs = {BEST: "**{}**", SECOND: "<u>{}</u>"}
    row = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    lines = [f"**{markdown_text(table.caption)}**", "", row(map(markdown_text, table.columns))]
    lines.append(row(["---", *["---:"] * (len(table.columns) - 1)]))
    for block, rows in _blocks(table):
        if table.block:
            lines.append(row([f"*{markdown_text(block)}*", *[""] * (len(table.columns) - 1)]))
        lines += [row(_marked(entry, markdown_text, signs) for entry in entries) for entries in rows]
    lines += ["", *(f"- {markdown_text(_sentence(note))}." for note in table.notes)]
    return "\n".join(lines).rstrip("\n") + "\n"


FORMS: dict[str, Callable[[PaperTable], str]] = {"csv": _csv, "tex": _latex, "md": _markdown}
"""Every form by the ending of its files."""


def write_tables(tables: Sequence[PaperTable], folder: Path) -> list[Path]:
    """Write tables in every form, and return the files.

    Parameters
    ----------
    tables : sequence of PaperTable
        From `paper_tables`.
    folder : Path
        Made where it is not there.

    Raises
    ------
    ScoresError
        If a file cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table in tables:
            for form in FORMS:
                written.append(folder / f"{table.name}.{form}")
                write_file(written[-1], typeset(table, form).encode(), durable=False)
    except OSError as error:
        raise ScoresError(f"tables cannot be written into {folder}: {error.strerror or error}") from error
    return written
