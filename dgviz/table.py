"""A table of figures as a value: rows for pandas, CSV, Parquet and HTML."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from dgviz.files import csv_text, save_by_ending
from dgviz.words import number

_SHOWN = 60  # rows that a notebook shows


@dataclass(frozen=True)
class Table:
    """A table of figures; going through it gives one dict per row, which `pandas.DataFrame` takes as it is.

    Parameters
    ----------
    name : str
        What it is called, also as a file.
    columns : tuple of str
        Names of the columns.
    rows : tuple of tuple
        Values in the order of the columns: numbers, text, None; what is no Unicode in text is escaped.

    Examples
    --------
    >>> table = Table("ranks", ("weight", "rank"), (("q", 3), ("k", None)))
    >>> list(table)
    [{'weight': 'q', 'rank': 3}, {'weight': 'k', 'rank': None}]
    >>> table["rank"]
    [3, None]
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(tuple(map(_plain, row)) for row in self.rows))

    @classmethod
    def of(cls, name: str, records: Sequence[dict[str, Any]]) -> "Table":
        """Return the table of rows that are dicts of the same keys.

        Parameters
        ----------
        name : str
            What it is called.
        records : sequence of dict
            The rows.
        """
        columns = tuple(records[0]) if records else ()
        return cls(name, columns, tuple(tuple(record[column] for column in columns) for record in records))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def __getitem__(self, column: str) -> list[Any]:
        """Return the values of a column."""
        at = self.columns.index(column)
        return [row[at] for row in self.rows]

    def to_csv(self) -> str:
        """Return it as CSV; None is an empty field."""
        return csv_text(self.columns, self.rows)

    def save(self, file: str | Path) -> Path:
        """Write it to a file in one step.

        Parameters
        ----------
        file : str or Path
            ``.csv`` or ``.parquet``, by its ending.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ExportError
            If the ending is another one, or the file cannot be written.
        """
        return save_by_ending(file, {".csv": lambda: self.to_csv().encode(), ".parquet": self._to_parquet})

    def _to_parquet(self) -> bytes:
        import pyarrow
        from pyarrow import parquet

        values, written = {column: self[column] for column in self.columns}, io.BytesIO()
        parquet.write_table(pyarrow.table(values), written)
        return written.getvalue()

    def _repr_html_(self) -> str:
        """Return its first rows for a notebook."""
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        rows = [f"<tr>{''.join(f'<td>{escape(number(value))}</td>' for value in row)}</tr>" for row in self.rows]
        more = f"<p>{len(rows) - _SHOWN} more rows</p>" if len(rows) > _SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows[:_SHOWN])}</tbody></table>{more}"


def _plain(value: Any) -> Any:
    """Return a value that is Unicode where it is text: names of tensors need not be."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
