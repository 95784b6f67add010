"""The tables of arXiv 2605.20296 from an assessed study: 1 to 3, 9 to 16, and the trend of every safety axis.

An entry that cannot be made says why: a score is missing, or no benchmark of the kind is there. No entry is made of a
part of what its row asks for without the table saying so.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dgviz.analysis.study.marks import MISSING, UNDEFINED, Entry, rank_entries, winners
from dgviz.analysis.study.noise import Noise, pool_noise
from dgviz.repair.methods import method_words
from dgviz.scores.recovery import METRICS, PARTS, Cell, Comparison, Recovery
from dgviz.scores.recovery.detail import SIZES, compute_sizes
from dgviz.scores.recovery.partition import count_parts, is_higher_better, planned_benchmarks, score_of
from dgviz.scores.recovery.resample import Resampler
from dgviz.words import some

OVERALL = "Overall"
"""The cohort of everything."""
GAP = 0.001
"""Scores that differ by less are level (Tables 14 and 15)."""
_LEVEL = 1e-9  # metrics in percent that differ by less are the same number
_MADE_OF = ("healed", "non_damage", "preserved", "on_task_retention")
_COMBINED = ("clean_up", "retention", "combined_population")
_REFERENCES = {"base": "Pre-trained", "tuned": "Full-SFT"}


@dataclass(frozen=True)
class PaperTable:
    """One table, as values.

    Attributes
    ----------
    number : str
        That of the paper's table; of one that the paper has not, a word.
    title : str
        What it shows.
    block : str
        What rows stand together by; empty where there are no blocks.
    columns : tuple of str
        Headings.
    rows : tuple of (str, tuple of Entry)
        Every row's block, and its entries.
    notes : tuple of str
        How to read it, and what is missing.
    said : str
        What the study file says of all of it, such as that the scores are made up.
    """

    number: str
    title: str
    block: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]
    notes: tuple[str, ...] = ()
    said: str = ""

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"table-{self.number}"

    @property
    def caption(self) -> str:
        """What stands over it."""
        title = f"Table {self.number}: {self.title}" if self.number[0].isdigit() else self.title
        return f"{title} ({self.said})" if self.said else title


def paper_tables(recovery: Recovery, noise: Noise | None = None) -> list[PaperTable]:
    """Return every table that the study has something for, in the order of the paper.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    noise : mapping, optional
        From `dgviz.analysis.study.read_noise`.
    """
    tables = [_aggregates(recovery, "1", _cohorts(recovery)), _sizes(recovery)]
    if recovery.axes:
        tables.append(_safety(recovery))
    tables += [_counts(recovery), _balance(recovery)]
    of_cells = [name for name in _cohorts(recovery) if _is_of_cells(recovery, name)]
    tables.append(_aggregates(recovery, "11", [name for name in _cohorts(recovery) if name not in of_cells]))
    if of_cells:
        tables.append(_aggregates(recovery, "12", of_cells))
    if len(_rivals(recovery)) == 2:
        tables.append(_head_to_head(recovery))
    for place, (model, cells) in enumerate(cells_by_model(recovery).items()):
        tables.append(_scores(recovery, f"{14 + place}" if place < 2 else f"15.{place}", model, cells))
    if recovery.study.design.noise:
        tables.append(_noise(recovery, noise or {}))
    if recovery.axes:
        tables.append(_trends(recovery))
    return [replace(table, said=recovery.study.design.note) for table in tables]


def method_title(label: str) -> str:
    """Return what a table calls a model of a cell: by its role or by its method."""
    return _REFERENCES.get(label) or method_words(label)


def _cohorts(recovery: Recovery) -> list[str]:
    """Return everything as a cohort, and every cohort of the study."""
    return [OVERALL, *(name for name in recovery.study.cohorts if name != OVERALL)]


def _is_of_cells(recovery: Recovery, cohort: str) -> bool:
    """Return whether a cohort is made of cells, as those of a model are."""
    members = set(recovery.study.cohorts.get(cohort, ()))
    return bool(members) and members <= {cell.name for cell in recovery.study.cells}


def _items(recovery: Recovery, cohort: str) -> tuple[Comparison, ...]:
    """Return the comparisons of a cohort."""
    return recovery.of_cohort("" if cohort == OVERALL and OVERALL not in recovery.study.cohorts else cohort)


def _rivals(recovery: Recovery) -> tuple[str, ...]:
    """Return the two labels that are compared with each other, where both were scored."""
    wanted = recovery.study.design.head_to_head or ("dg_hard", "wise_ft")
    return tuple(label for label in wanted if label in recovery.repaired)


def methods_of(recovery: Recovery) -> list[str]:
    """Return the labels of all repairs that are no controls."""
    return [label for label in recovery.repaired if not recovery.is_control(label)]


def cells_by_model(recovery: Recovery) -> dict[str, list[Cell]]:
    """Return the cells of every model, by what tables call it."""
    found: dict[str, list[Cell]] = {}
    for cell in recovery.study.cells:
        found.setdefault(cell.model or cell.base, []).append(cell)
    return found


def _metric_entry(recovery: Recovery, items: Iterable[Comparison], cohort: str, label: str, name: str) -> Entry:
    """Return a metric of a method over a cohort, or why there is none."""
    found = recovery.repaired[label]
    value = found.cohorts.get(cohort, found.metrics)[name].value
    scored = [item for item in items if label in item.repaired]
    if name == "on_task_retention" and any(cell.on_task for cell in recovery.study.cells):
        scored = [item for item in scored if item.on_task]
    return Entry(value, why=UNDEFINED if scored else MISSING)


def _partial_notes(recovery: Recovery, labels: Iterable[str]) -> list[str]:
    """Say of every repair how many scores its aggregates lack."""
    notes = []
    for label in labels:
        lacking = sum(
            score_of(recovery.chosen, cell, model, benchmark) is None
            for cell in recovery.study.cells
            if label in cell.repaired
            for benchmark in _planned(recovery, cell)
            for model in (cell.base, cell.tuned, cell.repaired[label])
        )
        if lacking:
            notes.append(
                f"{method_title(label)}: {some_scores(lacking)} of base, tuned or the repair itself are "
                "missing; its figures are of the others"
            )
    return notes


def some_scores(count: int) -> str:
    """Return how many scores, in words."""
    return f"{count} score{'s' if count != 1 else ''}"


def _planned(recovery: Recovery, cell: Cell) -> list[str]:
    """Return the benchmarks that a cell has, or should have."""
    names = planned_benchmarks(cell, recovery.study, recovery.chosen)
    if recovery.study.design.benchmarks:
        return names
    models = cell.base, cell.tuned, *cell.repaired.values()
    return [name for name in names if any(score_of(recovery.chosen, cell, model, name) for model in models)]


def _is_whole(recovery: Recovery, cell: Cell, label: str, benchmarks: Iterable[str]) -> bool:
    """Return whether base, tuned and one repair have all of some scores."""
    models = cell.base, cell.tuned, cell.repaired.get(label, "")
    return all(score_of(recovery.chosen, cell, model, name) for name in benchmarks for model in models)


def _open_notes(recovery: Recovery, cohorts: bool = True) -> list[str]:
    """Say which cohorts are left out because nobody has said what belongs to them."""
    names = recovery.study.open_cohorts() if cohorts else ()
    return [f"left out, because the study file leaves open what belongs to it: {some(names, 9)}"] if names else []


def _aggregates(recovery: Recovery, number: str, cohorts: Sequence[str]) -> PaperTable:
    """Return Tables 1, 11 or 12: every metric of every method, a block per cohort; best marked but in the first."""
    names = (*_MADE_OF, *_COMBINED) if number == "1" else (*_COMBINED, *_MADE_OF)
    labels, rows = methods_of(recovery), []
    for cohort in cohorts:
        items = _items(recovery, cohort)
        columns = [[_metric_entry(recovery, items, cohort, label, name) for label in labels] for name in names]
        if number != "1":
            columns = [rank_entries(column, _LEVEL) for column in columns]
        block = f"{cohort} ({counts_words(items)})"
        for label, entries in zip(labels, zip(*columns, strict=True), strict=True):
            rows.append((block, (Entry(method_title(label)), *entries)))
    title = {
        "1": "every method by cohort, in percent",
        "11": "over everything and by cohorts of benchmarks, in percent, best marked",
        "12": "by cohorts of models, in percent, best marked",
    }[number]
    notes = _open_notes(recovery, number != "12") + _partial_notes(recovery, labels)
    if number != "1":
        notes.append("which cohorts stand in Table 11 and which in 12 is not known of the paper: split by kind here")
    headings = tuple(_short(name) for name in names)
    return PaperTable(number, title, "Cohort", ("Method", *headings), tuple(rows), tuple(notes))


def _short(name: str) -> str:
    """Return a metric's heading; which Combined is meant, the table says."""
    return METRICS[name].title.partition(" (")[0]


def counts_words(items: Iterable[Comparison]) -> str:
    """Return how many benchmarks are damaged, improved and unchanged: ``n = 30 / 55 / 41``."""
    return "n = " + " / ".join(map(str, count_parts(items).values()))


def _sizes(recovery: Recovery) -> PaperTable:
    """Return Table 2: % preserved by size of improvement, of the two that are compared, else of all."""
    labels = _rivals(recovery) or tuple(methods_of(recovery))
    bounds, notes = dict(SIZES), []
    if recovery.study.design.sizes:
        uppers = recovery.study.design.sizes
        bounds = dict(zip(uppers, zip([0.0, *uppers.values()], uppers.values(), strict=False), strict=True))
    elif any(name.startswith("sizes.") for name in recovery.study.design.open):
        notes.append("the bounds of mild, moderate and large are open: these are dgviz's own")
    found = {label: [i for i in recovery.comparisons if label in i.repaired] for label in labels}
    bins = {
        label: {b.percent_of_base: b for b in compute_sizes(items, label, bounds) if b.part == "improved"}
        for label, items in found.items()
    }
    rows = []
    for size in bounds:
        entries = [Entry(own[size].percent) if size in own else Entry(None, why="none") for own in bins.values()]
        counts = [Entry(str(own[size].n if size in own else 0)) for own in bins.values()]
        pairs = zip(entries, counts, strict=True)
        rows.append(("", (Entry(size), *(entry for pair in pairs for entry in pair))))
    outside = sum(item.part == "improved" for item in recovery.comparisons) - max(
        (sum(b.n for b in own.values()) for own in bins.values()), default=0
    )
    if outside:
        notes.append(f"{outside} improvements lie outside these sizes or have no score of a method")
    notes.append("size: 100 (t - b) / b, the upper bound included; n: improved benchmarks of that size")
    headings = [name for label in labels for name in (method_title(label), f"{method_title(label)}: n")]
    title = "% preserved by size of improvement"
    return PaperTable("2", title, "", ("Size", *headings), tuple(rows), tuple(notes))


def _roles(recovery: Recovery) -> list[str]:
    """Return base, tuned, and every repair."""
    return [*_REFERENCES, *methods_of(recovery)]


def _model_of(cell: Cell, role: str) -> str:
    """Return the model of a cell that has a role; empty where there is none."""
    return {"base": cell.base, "tuned": cell.tuned}.get(role) or cell.repaired.get(role, "")


def role_scores(recovery: Recovery, cells: Sequence[Cell], role: str, benchmark: str) -> list[float | None]:
    """Return the scores on a benchmark of what has a role (``base``, ``tuned``, a label) in each of some cells."""
    scores = [score_of(recovery.chosen, cell, _model_of(cell, role), benchmark) for cell in cells]
    return [score.value if score else None for score in scores]


def _mean_score(recovery: Recovery, cells: Sequence[Cell], role: str, benchmark: str) -> Entry:
    """Return the mean score of a role over cells, or how many of them have one."""
    known = [value for value in role_scores(recovery, cells, role, benchmark) if value is not None]
    if len(known) < len(cells):
        return Entry(None, why=f"{len(known)} of {len(cells)} scored" if known else MISSING)
    return Entry(statistics.fmean(known), 3)


def _safety(recovery: Recovery) -> PaperTable:
    """Return Table 3: every safety axis of base, tuned and methods, a column per model; best marked."""
    columns, headings = [], []
    for model, cells in cells_by_model(recovery).items():
        for axis, title in recovery.study.design.axes.items():
            entries = [_mean_score(recovery, cells, role, axis) for role in _roles(recovery)]
            columns.append(rank_entries(entries, GAP, higher_is_better=_higher(recovery, axis)))
            headings.append(f"{model}: {title}")
    rows = [
        ("", (Entry(method_title(role)), *entries))
        for role, entries in zip(_roles(recovery), zip(*columns, strict=True), strict=True)
    ]
    notes = ["mean over the model's cells; an entry is a number only where all of them have a score"]
    notes += [
        f"{recovery.study.design.title_of(name.split('.')[1])}: whether the paper took this axis is open"
        for name in recovery.study.design.open
        if name.startswith("axes.") and name.endswith(".in_the_paper")
    ]
    lower = [title for axis, title in recovery.study.design.axes.items() if not _higher(recovery, axis)]
    if lower:
        notes.append(f"lower is better of {', '.join(lower)}")
    return PaperTable("3", "safety, best marked", "", ("Method", *headings), tuple(rows), tuple(notes))


def _higher(recovery: Recovery, benchmark: str) -> bool:
    """Return whether higher is better of a benchmark."""
    scores = [score for key, score in recovery.chosen.scores.items() if key[2] == benchmark]
    return is_higher_better(benchmark, scores, recovery.study)


def _counts(recovery: Recovery) -> PaperTable:
    """Return Table 9: how many held-out benchmarks of a cell are damaged, improved, unchanged, or not scored."""
    rows, total = [], dict.fromkeys((*PARTS, "missing"), 0)
    for model, cells in cells_by_model(recovery).items():
        for cell in cells:
            own = [item for item in recovery.comparisons if item.cell == cell.name]
            counts = count_parts(own)
            held_out = [name for name in _planned(recovery, cell) if name != cell.on_task]
            counts["missing"] = len(held_out) - sum(counts.values())
            rows.append((model, (Entry(cell.task or cell.name), *_numbers(counts.values()))))
            total = {name: total[name] + counts[name] for name in total}
    rows.append(("All", (Entry("all cells"), *_numbers(total.values()))))
    title = "held-out benchmarks damaged, improved and unchanged in every cell"
    columns = ("Task", *(name.capitalize() for name in total))
    return PaperTable("9", title, "Model", columns, tuple(rows), ("missing: no score of base or of tuned",))


def _numbers(counts: Iterable[int]) -> list[Entry]:
    return [Entry(number, 0) for number in counts]


def _balance(recovery: Recovery) -> PaperTable:
    """Return Table 10: Balance of every method in every cell, who wins it, and how many cells each one wins."""
    labels, rows = methods_of(recovery), []
    for model, cells in cells_by_model(recovery).items():
        for cell in cells:
            values = _balances(recovery, cell, recovery.comparisons, _planned(recovery, cell))
            entries = rank_entries([values[label] for label in labels], _LEVEL)
            rows.append((model, (Entry(cell.task or cell.name), *entries, Entry(_winner_words(recovery, values)))))
    for cohort in _cohorts(recovery):
        wins, contests, items = dict.fromkeys(labels, 0), 0, _items(recovery, cohort)
        for cell in recovery.study.cells:
            if wanted := _of_cohort(recovery, cell, cohort):
                best = _best(_balances(recovery, cell, items, wanted))
                contests += bool(best)
                wins |= {label: wins[label] + 1 for label in best}
        block = "Wins by cohort (cells with a winner)"
        rows.append((block, (Entry(f"{cohort} ({contests})"), *_numbers(wins.values()), Entry(""))))
    notes = [
        "Balance: harmonic mean of 100 r / b over the cell's held-out benchmarks and of 100 r / t on its task; only "
        "where no score of base, tuned and the method is missing",
        "a tie counts for everyone in it; the wins of a cohort of benchmarks are of Balance over these alone",
    ]
    headings = ("Task", *(method_title(label) for label in labels), "Winner")
    return PaperTable(
        "10", "Balance in every cell, winner marked", "Model", headings, tuple(rows), (*notes, *_open_notes(recovery))
    )


def _of_cohort(recovery: Recovery, cell: Cell, cohort: str) -> list[str]:
    """Return the benchmarks of a cell that belong to a cohort; none where its held-out ones do not."""
    members = set(recovery.study.cohorts.get(cohort, ()))
    cells = members & {other.name for other in recovery.study.cells}
    named, planned = members - cells, _planned(recovery, cell)
    if cells and cell.name not in cells:
        return []
    wanted = [name for name in planned if not named or name in named or name == cell.on_task]
    return wanted if any(name != cell.on_task for name in wanted) else []


def _balances(recovery: Recovery, cell: Cell, items: Iterable[Comparison], wanted: Sequence[str]) -> dict[str, Entry]:
    """Return Balance of every method in a cell over some benchmarks, where none of their scores is missing."""
    own = [item for item in items if item.cell == cell.name]
    found, points = {}, Resampler([], recovery.average, recovery.combination)
    for label in methods_of(recovery):
        if not _is_whole(recovery, cell, label, wanted):
            found[label] = Entry(None)
            continue
        found[label] = Entry(points.metrics(own, label)["balance"].value, why=UNDEFINED)
    return found


def _best(values: Mapping[str, Entry]) -> list[str]:
    """Return who wins a cell."""
    return winners({label: entry.value for label, entry in values.items()}, _LEVEL)


def _winner_words(recovery: Recovery, values: Mapping[str, Entry]) -> str:
    """Say who wins a cell, and of how many where some are missing."""
    names = ", ".join(method_title(label) for label in _best(values))
    known = sum(entry.value is not None for entry in values.values())
    return names + (f" (of {known})" if names and known < len(values) else "") or "none"


def _head_to_head(recovery: Recovery) -> PaperTable:
    """Return Table 13: two methods against each other in every cohort, the higher Combined marked."""
    rivals, names, rows = _rivals(recovery), (*_COMBINED[:2], *_MADE_OF, _COMBINED[2]), []
    for cohort in _cohorts(recovery):
        items = _items(recovery, cohort)
        entries = [[_metric_entry(recovery, items, cohort, label, name) for name in names] for label in rivals]
        combined = rank_entries([own[-1] for own in entries], _LEVEL)
        for label, own, last in zip(rivals, entries, combined, strict=True):
            rows.append((f"{cohort} ({counts_words(items)})", (Entry(method_title(label)), *own[:-1], last)))
    headings = ("Method", *map(_short, names))
    title = f"{' against '.join(method_title(label) for label in rivals)}, in percent, higher Combined marked"
    notes = (*_open_notes(recovery), *_partial_notes(recovery, rivals))
    return PaperTable("13", title, "Cohort", headings, tuple(rows), notes)


def _scores(recovery: Recovery, number: str, model: str, cells: Sequence[Cell]) -> PaperTable:
    """Return Table 14 or 15: every score of a model's cells; best and second of a task marked in every column."""
    held_out = list(dict.fromkeys(n for cell in cells for n in _planned(recovery, cell) if n != cell.on_task))
    higher = {name: _higher(recovery, name) for name in (*held_out, *(cell.on_task for cell in cells))}
    rows = []
    for cell in cells:
        roles = [role for role in _roles(recovery) if _model_of(cell, role)]
        raw = {
            role: [score_of(recovery.chosen, cell, _model_of(cell, role), name) for name in (*held_out, cell.on_task)]
            for role in roles
        }
        columns = []
        for place, name in enumerate((*held_out, cell.on_task)):
            entries = [Entry(score.value, 3) if (score := raw[role][place]) else Entry(None) for role in roles]
            columns.append(rank_entries(entries, GAP, True, higher[name]))
        same = all(higher[name] for name in held_out)
        average = [_average([score.value if score else None for score in raw[r][:-1]], same) for r in roles]
        columns.insert(-1, rank_entries(average, GAP, True))
        combined = [_combined(recovery, cell, role) for role in roles]
        columns.append(rank_entries(combined, _LEVEL, True))
        for role, entries in zip(roles, zip(*columns, strict=True), strict=True):
            rows.append((cell.task or cell.name, (Entry(method_title(role)), *entries)))
    titles = (recovery.study.design.title_of(name) for name in held_out)
    columns = ("Method", *titles, "Avg.", "On-task", "Combined")
    notes = [
        f"best and second marked in every column within a task; scores that differ by less than {GAP:g} are level",
        "Combined: per cell, in percent, among the methods only; Avg. and Combined only where no score is missing",
    ]
    return PaperTable(number, f"{model}, every score", "Task", columns, tuple(rows), tuple(notes))


def _average(values: Sequence[float | None], same_direction: bool) -> Entry:
    """Return the mean of a row's held-out scores."""
    if None in values or not values:
        return Entry(None)
    return Entry(statistics.fmean(values), 3) if same_direction else Entry(None, why=UNDEFINED)


def _combined(recovery: Recovery, cell: Cell, role: str) -> Entry:
    """Return Combined (per cell) of a method; base and tuned have none."""
    if role in _REFERENCES:
        return Entry("")
    if not _is_whole(recovery, cell, role, _planned(recovery, cell)):
        return Entry(None)
    return Entry(recovery.repaired[role].cells.get(cell.name))


def _noise(recovery: Recovery, noise: Noise) -> PaperTable:
    """Return Table 16: of every class of weight mean noise, norm share and their product, by model and method."""
    rows, notes = [], ["in percent; mean over the model's cells, and the product of the two means"]
    for model, cells in cells_by_model(recovery).items():
        for method in recovery.study.design.noise:
            tables = [noise[cell.name, method] for cell in cells if (cell.name, method) in noise]
            block = f"{model}, {method_title(method)}"
            if len(tables) < len(cells):
                notes.append(f"{block}: {len(tables)} of {len(cells)} noise tables are there")
            for row in pool_noise(tables):
                shares = (row.mean_noise, row.norm_share, row.product)
                rows.append((block, (Entry(row.group), *(Entry(100 * share, 2) for share in shares))))
            if not tables:
                rows.append((block, (Entry("every class"), Entry(None), Entry(None), Entry(None))))
    columns = ("Class of weight", "Mean noise", "Mean norm share", "Product")
    return PaperTable("16", "noise by class of weight", "Model, method", columns, tuple(rows), tuple(notes))


def _trends(recovery: Recovery) -> PaperTable:
    """Return what became of every safety axis: from base over tuned to every method, cell by cell."""
    rows = []
    for axis, title in recovery.study.design.axes.items():
        for model, cells in cells_by_model(recovery).items():
            names = {cell.name for cell in cells}
            items = [i for i in recovery.axes if i.benchmark == axis and i.cell in names]
            for role in _roles(recovery):
                rows.append((f"{title}, {model}", (Entry(method_title(role)), *_trend(items, role))))
    columns = ("Method", "Cells", "Change from base", "Change from tuned", "Better", "Worse", "Level")
    notes = (
        "changes: mean over the cells scored, in units of the score",
        "better, worse, level: in how many cells than tuned, within the tolerance; of tuned, than base",
    )
    return PaperTable("safety-trends", "Trend of every safety axis", "Axis, model", columns, tuple(rows), notes)


def _trend(items: Sequence[Comparison], role: str) -> Iterator[Entry]:
    """Yield how many cells were scored, the mean changes, and in how many cells a model is better, worse, level."""
    of_role: Callable[[Comparison], float | None] = lambda i: {  # noqa: E731
        "base": i.base.value,
        "tuned": i.tuned.value,
    }.get(role, i.repaired[role].value if role in i.repaired else None)
    known = [(item, value) for item in items if (value := of_role(item)) is not None]
    yield Entry(len(known), 0)
    for start in ("base", "tuned"):
        if known and role not in ("base", start):
            yield Entry(statistics.fmean(value - getattr(item, start).value for item, value in known), 3)
        else:
            yield Entry("") if known else Entry(None)
    reference = "base" if role == "tuned" else "tuned"
    gains = [(i.sign * (value - getattr(i, reference).value), i.limit) for i, value in known]
    if role == "base" or not known:
        yield from [Entry("") if known else Entry(None)] * 3
        return
    level = sum(abs(gain) <= limit for gain, limit in gains)
    better = sum(gain > limit for gain, limit in gains)
    yield from _numbers((better, len(gains) - better - level, level))
