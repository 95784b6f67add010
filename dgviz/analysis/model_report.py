"""All that is known of a pair under a plan, as one value: the verdict, what would be, every table, evidence."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dgviz
from dgviz.analysis.figures import POOLED
from dgviz.analysis.forecast import forecast_rows
from dgviz.analysis.groups import groups_of
from dgviz.analysis.model_spectra import Assessment, assess, read_spectra, verdict_of
from dgviz.analysis.tables import noise_groups, tensor_table, weight_table
from dgviz.checkpoint import CheckpointPair, Preflight, read_preflight
from dgviz.checkpoint.remote.record import address_of
from dgviz.command import Command
from dgviz.errors import SpectrumError, StateError
from dgviz.files import json_number, read_record
from dgviz.forecast import Forecast
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.diagnosis import Diagnosis
from dgviz.spectra.weight import Weight
from dgviz.table import Table

_COMPARED = "rank", "tau", "energy_kept", "verdict"  # of a weight
_SAME = 1e-6  # relative: another number of threads moves less


@dataclass(frozen=True)
class ModelReport:
    """A pair under a plan.

    Attributes
    ----------
    pair : CheckpointPair
        Base and tuned.
    plan : RepairPlan
        What would be done.
    rows : tuple of Assessment
        Every matrix that has a spectrum, in the order of the checkpoint.
    errors : mapping of str to str
        Matrices that have none, and why.
    evidence : mapping
        Scores that ``recovery --json`` has assessed; empty where there are none.
    """

    pair: CheckpointPair
    plan: RepairPlan
    rows: tuple[Assessment, ...]
    errors: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, str]:
        """What base and tuned are called."""
        return self.pair.base.path.name, self.pair.tuned.path.name

    @cached_property
    def preflight(self) -> Preflight:
        """What happens to every tensor, and what is surprising about the pair."""
        return read_preflight(self.pair)

    @cached_property
    def verdict(self) -> Diagnosis:
        """Whether the rule may be trusted on the model."""
        return verdict_of(self.rows, self.pair.base.config)

    @cached_property
    def forecast(self) -> Forecast:
        """What the plan would do."""
        return forecast_rows(self.pair, self.rows, self.plan)

    @property
    def command(self) -> Command:
        """What writes the repaired checkpoint."""
        base, tuned = (address_of(side.path) or side.path.name for side in (self.pair.base, self.pair.tuned))
        return Command("repair", base=base, tuned=tuned, out="OUT", **self.plan.arguments)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Every table by its name."""
        groups = [
            {"group": name, "matrices": len(own), "verdict": verdict_of(own).verdict}
            | {key: figure.pool(own) for key, figure in POOLED.items()}
            for name, own in groups_of(self.rows).items()
        ]
        found = [Table.of("groups", groups), weight_table(self.rows), noise_groups(self.rows)]
        found += [tensor_table(self.pair), *_evidence_tables(self.evidence)]
        return {table.name: table for table in found}

    def largest(self, count: int = 3) -> list[Weight]:
        """Return the weights of the largest updates that have a threshold, the largest first."""
        rows = [row for row in self.rows if not self.plan.at(row.weight.tensor, row.weight.index).keep]
        return [row.weight for row in sorted(rows, key=lambda row: row.spectrum.energy, reverse=True)[:count]]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        sides = {"base": self.pair.base, "tuned": self.pair.tuned}
        return json_number(
            {
                "dgviz": dgviz.__version__,
                **{
                    side: {"name": found.path.name, "fingerprint": found.fingerprint} for side, found in sides.items()
                },
                "plan": self.plan.to_json(),
                "summary": self.preflight.summary,
                "model": self.verdict.to_json() | {"forecast": self.forecast.to_json()},
                "tables": {name: list(table) for name, table in self.tables.items()},
                "errors": dict(self.errors),
            }
        )


def report_model(
    pair: CheckpointPair,
    plan: RepairPlan,
    errors: Mapping[str, str] | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> ModelReport:
    """Return the report of a pair that was scanned.

    Raises
    ------
    SpectrumError
        If a matrix has neither a stored spectrum nor an error that says why.
    """
    errors = errors or {}
    spectra = read_spectra(pair, hash_bytes=2**63)
    unknown = [weight.name for weight in spectra.missing if weight.name not in errors]
    if unknown or not spectra.weights:
        scan = Command("scan", base=pair.base.path, tuned=pair.tuned.path)
        why = next(iter(errors.values()), "no scan has stored them")
        missing, total = len(spectra.missing), len(spectra.missing) + len(spectra.weights)
        raise SpectrumError(f"{missing} of {total} matrices have no spectrum ({why}): first run {scan}")
    rows = tuple(assess(stored, *plan.rule_of(stored.weight)) for stored in spectra.weights)
    return ModelReport(pair, plan, rows, errors, evidence or {})


def read_evidence(file: str | Path) -> dict[str, Any]:
    """Return scores that ``recovery --json`` has assessed.

    Raises
    ------
    StateError
        If the file is not there or holds something else.
    """
    return _read(file, "what recovery --json prints", _evidence_tables)


def read_model_report(file: str | Path) -> dict[str, Any]:
    """Return another report's values, as ``report --save`` has written them.

    Raises
    ------
    StateError
        If the file is not there or holds something else.
    """
    return _read(file, "what report --save writes", lambda found: differences(found, found))


def _read(file: str | Path, what: str, use: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return what a file holds, where it can be used as it is to be."""
    path = Path(file).expanduser()
    try:
        found = read_record(path)
        if found is not None:
            use(found)
    except StateError as error:
        raise StateError(f"{error}; give {what}") from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise StateError(f"{path} lacks {error} or has it of another kind; give {what}") from None
    if found is None:
        raise StateError(f"{path} is not there; give {what}")
    return found


def _evidence_tables(evidence: Mapping[str, Any]) -> list[Table]:
    """Return what every repair has healed and preserved, and every benchmark."""
    if not evidence:
        return []
    metrics = [
        {"repair": label, "metric": name, "percent": value["value"]}
        | dict(zip(("low", "high"), value["interval"] or (None, None), strict=True))
        | {"n": value["n"]}
        for part in ("repaired", "controls")
        for label, found in evidence.get(part, {}).items()
        for name, value in found.items()
        if isinstance(value, Mapping) and "interval" in value
    ]
    benchmarks = [
        {"cell": row["cell"], "benchmark": row["benchmark"], "part": row["part"], "model": model}
        | {name: score[name] for name in ("score", "stderr", "n")}
        for row in evidence["benchmarks"]
        for model, score in {"base": row["base"], "tuned": row["tuned"], **row["repaired"]}.items()
    ]
    return [Table.of("recovery", metrics), Table.of("benchmarks", benchmarks)]


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[Table]:
    """Return what differs between two reports: settings and figures of the model, and weight by weight."""
    values = [_told(report) for report in (own, other)]
    settings = [
        {"what": name, "here": values[0].get(name), "there": values[1].get(name)}
        for name in dict.fromkeys([*values[0], *values[1]])
        if not _alike(values[0].get(name), values[1].get(name))
    ]
    here, there = ({row["weight"]: row for row in report["tables"]["weights"]} for report in (own, other))
    weights = [
        {"weight": name, "what": key, "here": here.get(name, {}).get(key), "there": there.get(name, {}).get(key)}
        for name in dict.fromkeys([*here, *there])
        for key in _COMPARED
        if not _alike(here.get(name, {}).get(key), there.get(name, {}).get(key))
    ]
    return [_texts("settings that differ", settings), _texts("weights that differ", weights)]


def _told(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report says of the whole model, each figure under what it is called."""
    told = {"dgviz": report["dgviz"]} | {side: report[side]["name"] for side in ("base", "tuned")}
    told |= {name: str(value) for name, value in report["plan"].items()}
    told |= {"verdict": report["model"]["verdict"], "forecast": report["model"]["forecast"]["sentence"]}
    told |= {name: value for name, value in report["tables"]["groups"][0].items() if name != "group"}
    return told


def _alike(a: Any, b: Any) -> bool:
    numbers = all(isinstance(value, int | float) for value in (a, b))
    return math.isclose(a, b, rel_tol=_SAME, abs_tol=1e-12) if numbers else a == b


def _texts(name: str, records: list[dict[str, Any]]) -> Table:
    """Return a table whose columns hold text, however different what they tell is."""
    shown = [{key: value if value is None else str(value) for key, value in row.items()} for row in records]
    return Table.of(name, shown)
