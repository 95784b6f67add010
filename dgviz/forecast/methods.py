"""What every repair method healed on the calibration's pairs at a target score that one wants kept."""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson

from dgviz.forecast.table import Value

FLOORS = (98, 95, 90)
"""Percent of the gain on the target that is to be kept."""
METHODS_TABLE = Path(__file__).parent / "methods.json"
METHOD_TITLES = (
    "method", "pairs", *(f"healed, % at {floor} % of the target" for floor in FLOORS),
    *(f"on other examples, at {floor} %" for floor in FLOORS), "above DG-Hard, at 95 %",
)  # fmt: skip


@dataclass(frozen=True)
class MethodsTable:
    """Methods by pairs.

    Attributes
    ----------
    titles : mapping of str to str
        Of the methods, in their order.
    pairs : tuple of mapping
        As ``dgviz calibrate --methods`` has written them.
    """

    titles: Mapping[str, str]
    pairs: tuple[Mapping[str, Any], ...]

    @property
    def counted(self) -> list[Mapping[str, Any]]:
        """Pairs whose damage and gain are above two standard errors."""
        return [pair for pair in self.pairs if all(Value(**pair[name]).certain for name in ("damage", "gain"))]

    def values(self, method: str, floor: int, apart: bool = False) -> list[float]:
        """Return what a method healed on every counted pair, in percent."""
        rows = [pair["methods"][method][str(floor)] for pair in self.counted]
        return [row["healed_apart"] if apart else row["healed"]["value"] for row in rows]


@functools.cache
def read_methods(path: Path = METHODS_TABLE) -> MethodsTable:
    """Return a table of methods, by default the one that comes with the package."""
    table = orjson.loads(path.read_bytes())
    return MethodsTable(table["methods"], tuple(table["pairs"]))


def method_rows(table: MethodsTable, reference: str = "dg_hard") -> list[tuple[str, ...]]:
    """Return a row per method: means over the pairs with their standard errors, and how far it is from DG-Hard."""
    rows = []
    for method, title in table.titles.items():
        both = zip(table.values(method, 95), table.values(reference, 95), strict=True)
        ahead = "-" if method == reference else _mean([own - other for own, other in both])
        cells = [_mean(table.values(method, floor, apart)) for apart in (False, True) for floor in FLOORS]
        rows.append((title, str(len(table.counted)), *cells, ahead))
    return rows


def pair_method_rows(table: MethodsTable, floor: int) -> list[tuple[str, ...]]:
    """Return a row per counted pair and a column per method: what it healed, and its standard error."""
    rows = []
    for pair in table.counted:
        cells = (pair["methods"][method][str(floor)]["healed"] for method in table.titles)
        rows.append((pair["name"], *(f"{cell['value']:.1f} ± {cell['stderr']:.1f}" for cell in cells)))
    return rows


def _mean(values: Iterable[float]) -> str:
    """Return a mean with its standard error over the values."""
    known = list(values)
    if len(known) < 2:
        return "-"
    mean = fmean(known)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) * (len(known) - 1)))
    return f"{mean:.1f} ± {spread:.1f}"
