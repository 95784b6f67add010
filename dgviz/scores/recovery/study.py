"""Which models and benchmarks belong together: cells, each with its base, tuned and repaired models."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dgviz.errors import ScoresError
from dgviz.scores import ScoreTable
from dgviz.scores.read import read_scores_file
from dgviz.scores.recovery.design import PARTS_OF_A_DESIGN, Design, read_design

PARTS_OF_A_STUDY = {"cells": list, "cohorts": dict, "lower_is_better": list, **PARTS_OF_A_DESIGN}
"""What a study file may hold."""


@dataclass(frozen=True)
class Cell:
    """One (model, task) pair.

    Attributes
    ----------
    name : str
        What the cell is called.
    base, tuned : str
        Models before and after fine-tuning.
    on_task : str
        The benchmark fine-tuning was for; empty where it was not scored.
    repaired : mapping of label to model
        The label is what the same repair is called in every cell.
    model, task : str
        What was fine-tuned, and for what, as tables call them; empty where no study file says it.
    """

    name: str
    base: str
    tuned: str
    on_task: str = ""
    repaired: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    task: str = ""


@dataclass(frozen=True)
class Study:
    """Everything that is compared.

    Attributes
    ----------
    cells : tuple of Cell
        At least one.
    cohorts : mapping of name to tuple of str
        Benchmarks or cells that are looked at together, such as Knowledge.
    lower_is_better : frozenset of str
        Benchmarks declared so, beside those whose file says it.
    families : mapping of label to str
        The method a repair is a setting of, where a file says it.
    controls : frozenset of str
        Labels that a file says are no repairs but what repairs are compared with.
    design : Design
        What was meant to be scored, and how tables call it.
    """

    cells: tuple[Cell, ...]
    cohorts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lower_is_better: frozenset[str] = frozenset()
    families: Mapping[str, str] = field(default_factory=dict)
    controls: frozenset[str] = frozenset()
    design: Design = field(default_factory=Design)

    def labels(self) -> tuple[str, ...]:
        """Return what the repairs are called, in the order of the cells."""
        return tuple(dict.fromkeys(label for cell in self.cells for label in cell.repaired))

    def open_cohorts(self) -> tuple[str, ...]:
        """Return the cohorts of which nobody has said what belongs to them."""
        paths = (path.removeprefix("cohorts.") for path in self.design.open if path.startswith("cohorts."))
        return tuple(name for name in paths if name not in self.cohorts)

    def only(self, names: Iterable[str]) -> "Study":
        """Return the study of some cells; cohorts that it leaves empty, or that are all of it, go.

        Parameters
        ----------
        names : iterable of str
            Of cells; none means all.

        Raises
        ------
        ScoresError
            If there is no such cell.
        """
        wanted, known = list(names), [cell.name for cell in self.cells]
        for name in wanted:
            if name not in known:
                raise ScoresError(f"there is no cell {name!r}; there are {', '.join(known)}")
        if not wanted:
            return self
        gone = set(known) - set(wanted)
        left = {name: tuple(m for m in members if m not in gone) for name, members in self.cohorts.items()}
        cohorts = {name: members for name, members in left.items() if members and set(members) != set(wanted)}
        return replace(self, cells=tuple(cell for cell in self.cells if cell.name in wanted), cohorts=cohorts)


def plan_study(
    table: ScoreTable,
    *,
    base: str = "",
    tuned: str = "",
    on_task: Mapping[str, str] | str = "",
    repaired: Iterable[str] = (),
    cells: Iterable[Cell] = (),
    cohorts: Mapping[str, Iterable[str]] | None = None,
    lower_is_better: Iterable[str] = (),
    design: Design | None = None,
) -> Study:
    """Return what is compared with what.

    Parameters
    ----------
    table : ScoreTable
        All scores.
    base, tuned : str
        Models by name. Where the file itself says what its models are, both may be left out, and every fine-tune is a
        cell; where scores name their cell, these are the names within every cell.
    on_task : str or mapping of cell to str
        The benchmark fine-tuning was for; where the file says it, it may be left out.
    repaired : iterable of str
        The repaired models; by default those the file calls repairs of `tuned`, else all other models.
    cells : iterable of Cell
        The cells outright, instead of all of the above.
    cohorts : mapping of name to benchmarks or cells
        What is looked at together.
    lower_is_better : iterable of str
        Benchmarks of which less is better.
    design : Design, optional
        What was meant to be scored: where it names benchmarks, a score that is not there is missing and no error.

    Raises
    ------
    ScoresError
        If a name does not exist, or base, tuned or the on-task benchmark cannot be told.
    """
    design = design or Design()
    cells = tuple(cells) or _cells(table, base, tuned, on_task, list(repaired))
    known_models, known_benchmarks = table.model_names(), (*table.benchmark_names(), *design.benchmarks, *design.axes)
    if design.benchmarks:
        known_models += tuple(name for cell in cells for name in (cell.base, cell.tuned, *cell.repaired.values()))
        known_benchmarks += tuple(cell.on_task for cell in cells)
    for cell in cells:
        for role, model in (("base", cell.base), ("tuned", cell.tuned), *cell.repaired.items()):
            _must_be(model, known_models, f"cell {cell.name}: {role} model")
        if cell.base == cell.tuned:
            raise ScoresError(f"cell {cell.name}: base and tuned are both {cell.base!r}; name two models")
        if cell.on_task:
            _must_be(cell.on_task, known_benchmarks, f"cell {cell.name}: on-task benchmark")
    names = [cell.name for cell in cells]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise ScoresError(f"two cells are called {min(doubled)}: give every cell a name of its own")
    for name in lower_is_better:
        _must_be(name, known_benchmarks, "lower is better: benchmark")
    groups = {cohort: tuple(members) for cohort, members in (cohorts or {}).items()}
    for cohort, members in groups.items():
        for member in members:
            _must_be(member, (*known_benchmarks, *names), f"cohort {cohort}: benchmark or cell")
    roles = {label: table.role_of(model) for cell in cells for label, model in cell.repaired.items()}
    families = {label: role.family for label, role in roles.items() if role.family}
    controls = frozenset(label for label, role in roles.items() if role.control)
    return Study(cells, groups, frozenset(lower_is_better), families, controls, design)


def _must_be(name: str, known: Iterable[str], what: str) -> None:
    if name not in known:
        raise ScoresError(f"{what} {name!r} has no scores; there are {', '.join(known)}")


def _cells(
    table: ScoreTable, base: str, tuned: str, on_task: Mapping[str, str] | str, repaired: list[str]
) -> tuple[Cell, ...]:
    """Return the cells that names, roles and the column of cells make."""
    places = tuple(dict.fromkeys(score.cell for score in table.scores if score.cell))
    if tuned:
        fine_tunes = [tuned]
    else:
        fine_tunes = [name for name, role in table.models.items() if role.role == "tuned" and not places]
    names = ", ".join(table.model_names())
    if not fine_tunes:
        raise ScoresError(f"which model is the tuned one is not said: name it with --tuned; there are {names}")
    cells = []
    for place in places or ("",):
        for fine_tune in fine_tunes:
            start = base or table.role_of(fine_tune).base
            if not start:
                raise ScoresError(f"which model is the base is not said: name it with --base; there are {names}")
            name = place or fine_tune
            there = [score.model for score in table.scores if score.cell in ("", place)]
            repairs = repaired or _repairs(table, start, fine_tune, there)
            labels = {_label(table, fine_tune, model): model for model in repairs if not place or model in there}
            cells.append(Cell(name, start, fine_tune, _on_task(table, name, on_task), labels))
    return tuple(cells)


def _repairs(table: ScoreTable, base: str, tuned: str, there: list[str]) -> list[str]:
    """Return the models that are repairs of a fine-tune: those said to be, else all that are nothing else."""
    said = [name for name, role in table.models.items() if role.role == "repaired" and role.tuned == tuned]
    others = [name for name in there if name not in (base, tuned) and name not in table.models]
    return list(dict.fromkeys([*said, *others]))


def _label(table: ScoreTable, tuned: str, model: str) -> str:
    """Return what a repair is called in every cell."""
    return table.role_of(model).label or model.removeprefix(f"{tuned}/")


def _on_task(table: ScoreTable, cell: str, on_task: Mapping[str, str] | str) -> str:
    """Return the on-task benchmark of a cell."""
    by_cell = on_task if isinstance(on_task, Mapping) else {"": on_task} if on_task else {}
    if cell in by_cell or "" in by_cell:
        return by_cell.get(cell, by_cell.get("", ""))
    said = [name for name, role in table.roles.items() if role == "on_task"]
    if len(said) > 1:
        raise ScoresError(f"the file calls {', '.join(said)} on-task: name the one of cell {cell} with --on-task")
    return said[0] if said else ""


def read_study(path: str | Path) -> dict[str, Any]:
    """Return what a study file says, as arguments for `plan_study`.

    Parameters
    ----------
    path : str or Path
        JSON: ``{"cells": [{"name", "base", "tuned", "on_task", "repaired": {label: model}, "model", "task"}],
        "cohorts": {name: [benchmark or cell]}, "lower_is_better": [benchmark]}`` and the parts of a `Design`; every
        part may be left out. What is null is an open field.

    Raises
    ------
    ScoresError
        If the file cannot be read or says anything else.
    """
    return study_arguments(read_study_file(path), str(path))


def read_study_file(path: str | Path) -> Any:
    """Return the content of a study file, not looked at."""
    try:
        return json.loads(read_scores_file(path))
    except (ValueError, RecursionError) as error:
        raise ScoresError(f"{path} cannot be read as JSON ({error}): name a study file") from error


def study_arguments(content: Any, source: str) -> dict[str, Any]:
    """Return what the content of a study file says, as arguments for `plan_study`."""
    if not isinstance(content, dict) or not content.keys() <= PARTS_OF_A_STUDY.keys():
        raise ScoresError(f"{source} is no study: it may hold {', '.join(PARTS_OF_A_STUDY)} and nothing else")
    for name, kind in PARTS_OF_A_STUDY.items():
        if content.get(name) is not None and not isinstance(content[name], kind):
            word = {list: "list", str: "text", dict: "object"}.get(kind, "number")
            raise ScoresError(f"{source}: {name} is no {word}: see docs/how-to/judge-recovery.md")
    fields = {field.name for field in dataclasses.fields(Cell)}
    cells = []
    for number, row in enumerate(content.get("cells") or []):
        if not isinstance(row, dict) or not {"name", "base", "tuned"} <= row.keys() <= fields:
            raise ScoresError(
                f"{source} cells[{number}] needs name, base and tuned, and may have on_task, repaired, model and task"
            )
        if not isinstance(row.get("repaired", {}), dict):
            raise ScoresError(f'{source} cells[{number}]: repaired is no object: write {{"label": "model"}}')
        cells.append(Cell(**row))
    cohorts = content.get("cohorts") or {}
    for name, members in cohorts.items():
        if members is not None and not isinstance(members, list):
            raise ScoresError(f"{source}: cohort {name} is no list: write the benchmarks or cells that belong to it")
    design = read_design(content, source)
    about = {**(content.get("benchmarks") or {}), **(content.get("axes") or {})}
    lower = [*(content.get("lower_is_better") or []), *(name for name in about if about[name].get("lower_is_better"))]
    return {
        "cells": cells,
        "cohorts": {name: list(map(str, members)) for name, members in cohorts.items() if members is not None},
        "lower_is_better": list(dict.fromkeys(map(str, lower))),
        "design": design,
    }
