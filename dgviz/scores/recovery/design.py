"""What a study was meant to be: its benchmarks and safety axes, how tables call them, and which fields are open.

A field of a study file that is null is open: nobody has said it yet, and what hangs on it is named and not guessed.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dgviz.errors import ScoresError
from dgviz.scores.types import ScoreTable

PARTS_OF_A_DESIGN = {
    "title": str,
    "note": str,
    "models": dict,
    "benchmarks": dict,
    "axes": dict,
    "sizes": dict,
    "tolerance": (int, float),
    "head_to_head": list,
    "noise": dict,
    "inference": dict,
    "training": dict,
}
"""What a study file may say beside its cells and cohorts, and the kind of each."""


@dataclass(frozen=True)
class Design:
    """What was meant to be scored, and how.

    Attributes
    ----------
    benchmarks : mapping of name to str
        Every held-out benchmark with its title; empty where all that was scored counts.
    axes : mapping of name to str
        Benchmarks of safety with their titles: looked at apart, never among the held-out ones.
    metrics : mapping of benchmark to str
        The metric that is meant, as `dgviz.scores.choose_scores` takes it.
    sizes : mapping of str to float
        Upper bounds of the sizes of an improvement, in percent of base's score; empty while one is open.
    tolerance : float or None
        What counts as unchanged; None while it is open.
    head_to_head : tuple of str
        Two labels that are compared with each other.
    noise : mapping of method to str
        Where the noise table of each method's update lies, with ``{cell}`` for the cell.
    inference : mapping
        ``backend``, ``model_args`` and ``generation`` of `evaluate`.
    note : str
        What is said beside every table and figure, such as that the scores are made up.
    open : tuple of str
        Fields that are null, by their path in the file.
    """

    benchmarks: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    tolerance: float | None = None
    head_to_head: tuple[str, ...] = ()
    noise: Mapping[str, str] = field(default_factory=dict)
    inference: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    open: tuple[str, ...] = ()

    def metrics_of(self, table: ScoreTable) -> dict[str, str]:
        """Return the metrics of the benchmarks that have scores, as `choose_scores` takes them.

        Parameters
        ----------
        table : ScoreTable
            All scores.
        """
        known = table.benchmark_names()
        return {name: metric for name, metric in self.metrics.items() if name in known}

    def title_of(self, benchmark: str) -> str:
        """Return what tables call a benchmark.

        Parameters
        ----------
        benchmark : str
            Its name.
        """
        return self.benchmarks.get(benchmark) or self.axes.get(benchmark) or benchmark


def read_design(content: Mapping[str, Any], source: str) -> Design:
    """Return what the content of a study file says of its design; kinds were looked at before."""
    about = {}
    for part in ("benchmarks", "axes"):
        for name, row in (content.get(part) or {}).items():
            if not isinstance(row, dict):
                raise ScoresError(f"{source}: {part}.{name} is no object: write {{}} where nothing is known of it")
            about[name] = row
    titles = {name: str(row.get("title") or name) for name, row in about.items()}
    sizes = content.get("sizes") or {}
    known = [math.inf if bound == "inf" else bound for bound in sizes.values() if bound is not None]
    numbers = [bound for bound in known if isinstance(bound, int | float) and bound > 0]
    if len(numbers) < len(known) or numbers != sorted(set(numbers)):
        raise ScoresError(
            f'{source}: sizes are {sizes}: write growing upper bounds in percent, the last may be "inf"'
        )
    rivals = tuple(map(str, content.get("head_to_head") or ()))
    if len(rivals) not in (0, 2):
        raise ScoresError(f"{source}: head_to_head names {len(rivals)} labels: name the two to compare")
    tolerance = content.get("tolerance")
    return Design(
        benchmarks={name: titles[name] for name in content.get("benchmarks") or {}},
        axes={name: titles[name] for name in content.get("axes") or {}},
        metrics={name: str(row["metric"]) for name, row in about.items() if row.get("metric")},
        sizes=dict(zip(sizes, known, strict=True)) if len(known) == len(sizes) else {},
        tolerance=None if tolerance is None else float(tolerance),
        head_to_head=rivals,
        noise={str(method): str(path) for method, path in (content.get("noise") or {}).items() if path},
        inference=content.get("inference") or {},
        note=str(content.get("note") or ""),
        open=tuple(_open(content)),
    )


def _open(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every field that is null."""
    if value is None:
        yield path
    elif isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _open(item, f"{path}.{key}" if path else str(key))
