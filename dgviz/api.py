"""The stages from Python: a pair under a plan, its scan, one weight of it, and the checkpoint that a repair writes.

Same store, same numbers and same bytes as the command line. Failures are sentences, errors of `dgviz.errors`.
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dgviz.analysis.lens import Reading, lens_table, read_directions
from dgviz.analysis.model_spectra import Assessment, assess, read_spectra
from dgviz.analysis.scanned import finish_scan
from dgviz.analysis.tables import noise_groups, tensor_table, weight_table
from dgviz.checkpoint import CheckpointPair, inspect_pair
from dgviz.checkpoint import open_pair as open_repairable
from dgviz.errors import PlanError, SpectrumError
from dgviz.export import plan_export
from dgviz.export.push import check_repository
from dgviz.figures.picture import Picture
from dgviz.files import PAGE, PICTURE, check_ending
from dgviz.forecast import Forecast
from dgviz.packages import need
from dgviz.repair.hire import check_device, hire
from dgviz.repair.overrides import refuse_idle
from dgviz.repair.plan import RepairPlan, read_plan_file
from dgviz.repair.report import Changes
from dgviz.rmt.assess import apply_rule, matrix_row
from dgviz.rmt.diagnosis import Diagnosis
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.model_scan import iter_scan
from dgviz.spectra.schedule import plan_tasks
from dgviz.spectra.weight import Weight, find_weight, weights_of
from dgviz.table import Table


def open_pair(
    base: str | Path,
    tuned: str | Path,
    *,
    include: str | None = None,
    exclude: str | None = None,
    device: str = "auto",
) -> "Pair":
    """Open a base checkpoint and its fine-tuned descendant by their headers.

    Parameters
    ----------
    base, tuned : str or Path
        Folders, hub ids in the cache, or addresses; tuned may be a LoRA adapter of base.
    include, exclude : str, optional
        Regular expressions: repair only tensors whose name matches, or keep tuned's bytes of those.
    device : str
        Where to compute: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.

    Returns
    -------
    Pair
        Under DG-Hard with its own settings; `Pair.plan` gives it another plan.

    Raises
    ------
    CheckpointError, PairError, SpectrumError
        If there is nothing to look at, or no such device. What would block a repair is a warning here, and an error
        of `Pair.repair`.

    Examples
    --------
    >>> import dgviz
    >>> pair = dgviz.open_pair("pair/base", "pair/noisy")
    >>> pair
    <Pair base -> noisy: 26 matrices, DG-Hard>
    """
    return _opened(base, tuned, RepairPlan(include=include, exclude=exclude), device)


def _opened(base: str | Path, tuned: str | Path, plan: RepairPlan, device: str) -> "Pair":
    """Return a pair under a plan, with a warning of what would block a repair."""
    check_device(device)
    found = inspect_pair(base, tuned, plan.include, plan.exclude)
    if not found.repairable:
        found.refuse_blocked()
    for blocker in found.blockers:
        warnings.warn(blocker.sentence, stacklevel=3)
    refuse_idle(plan, found)
    return Pair((base, tuned), found, plan, device)


@dataclass(frozen=True, eq=False, repr=False)
class Pair:
    """A base and a tuned checkpoint under a plan; `open_pair` makes one. Names of matrices are its keys.

    Attributes
    ----------
    paths : (str or Path, str or Path)
        Base and tuned as they were given.
    checkpoints : CheckpointPair
        Both sides, and the action on every tensor.
    repair_plan : RepairPlan
        What is done with it.
    device : str
        Where it is computed.

    Examples
    --------
    >>> import dgviz
    >>> pair = dgviz.open_pair("pair/base", "pair/noisy")
    >>> len(pair), next(iter(pair))
    (26, 'classifier.weight')
    >>> pair["classifier.weight"].threshold.rank
    1
    """

    paths: tuple[str | Path, str | Path]
    checkpoints: CheckpointPair
    repair_plan: RepairPlan
    device: str = "auto"

    def __repr__(self) -> str:
        count = len(self.repair_plan.overrides)
        base, tuned = (side.path.name for side in (self.checkpoints.base, self.checkpoints.tuned))
        apart = f", {count} override{'s' * (count > 1)}" if count else ""
        return f"<Pair {base} -> {tuned}: {len(self)} matrices, {self.repair_plan.default.title}{apart}>"

    def __len__(self) -> int:
        return len(weights_of(self.checkpoints))

    def __iter__(self) -> Iterator[str]:
        return (weight.name for weight in weights_of(self.checkpoints))

    def __getitem__(self, name: str) -> "Update":
        """Return the update of one matrix by its name, ``NAME[3]`` for one of a stack.

        Raises
        ------
        PairError
            If there is no such matrix, or a repair does not change it; names alike are in the message.
        """
        return Update(self, find_weight(self.checkpoints, name))

    def plan(
        self,
        file: str | Path | None = None,
        *,
        rule: str = "dg_hard",
        params: Mapping[str, float] | None = None,
        method: str = "dg_hard",
        method_params: Mapping[str, float] | None = None,
        shrinker: str = "hard",
        dtype: str = "auto",
        overrides: Sequence[str] = (),
    ) -> "Pair":
        """Return the same pair under another plan; what is not given is as by default.

        Parameters
        ----------
        file : str or Path, optional
            A plan's file, or an export's ``dgviz.json``: the whole plan is taken from there, and of the other
            arguments only `overrides` may be given, which win over the file's.
        rule, params : str, mapping
            Threshold rule and its parameters.
        method, method_params : str, mapping
            Repair method and its parameters.
        shrinker : str
            Of the kept values.
        dtype : str
            Of the output.
        overrides : sequence of str
            What some weights get instead, as ``"lm_head: keep=tuned"``; later ones win.

        Raises
        ------
        ThresholdError, MethodError, PlanError
            If something is unknown or out of range, or an override changes nothing here.

        Examples
        --------
        >>> import dgviz
        >>> pair = dgviz.open_pair("pair/base", "pair/noisy")
        >>> other = pair.plan(rule="mp_edge", overrides=["classifier: keep=tuned"])
        >>> other
        <Pair base -> noisy: 26 matrices, Marchenko-Pastur edge, 1 override>
        """
        given = {
            "rule": rule,
            "params": params or {},
            "method": method,
            "method_params": method_params or {},
            "shrinker": shrinker,
            "dtype": dtype,
        }
        own = RepairPlan(
            include=self.repair_plan.include, exclude=self.repair_plan.exclude, overrides=overrides, **given
        )
        if file is None:
            refuse_idle(own, self.checkpoints)
            return Pair(self.paths, self.checkpoints, own, self.device)
        if own.default != RepairPlan(include=own.include, exclude=own.exclude):
            raise PlanError(f"{file} says the whole plan: give overrides beside it only, or change the file")
        stored = read_plan_file(file)
        values = stored.to_json()
        plan = RepairPlan.from_json(values | {"overrides": [*values["overrides"], *overrides]})
        return _opened(*self.paths, plan, self.device)

    @property
    def tensors(self) -> Table:
        """What is done with every tensor of both sides, and why."""
        return tensor_table(self.checkpoints)

    def scan(self, *, workers: int | None = None, progress: bool = False) -> "Scan":
        """Decompose every weight's update into the store, and return what the plan makes of the model.

        What is stored already is not computed again.

        Parameters
        ----------
        workers : int, optional
            Processes; one per core, or one per GPU, by default.
        progress : bool
            Whether to draw a bar on standard error.

        Returns
        -------
        Scan
            A matrix that failed is among its `errors`, and a warning says so; the others are done.

        Examples
        --------
        >>> import dgviz
        >>> scan = dgviz.open_pair("pair/base", "pair/noisy").scan()
        >>> scan.verdict.word
        'passes with warnings'
        >>> sum(scan.weights["rank"])
        80
        """
        from tqdm import tqdm

        started, results = time.perf_counter(), []
        total = sum(task.work for task in plan_tasks(self.checkpoints))
        shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} < {remaining}"
        own = self.repair_plan.rule_of
        scan = iter_scan(self.checkpoints, device=self.device, workers=workers, own=own)
        with closing(scan), tqdm(total=total, desc="scan", bar_format=shape, disable=not progress) as bar:
            for result in scan:
                results.append(result)
                bar.update(result.work)
        report, forecast = finish_scan(self.checkpoints, results, self.repair_plan, time.perf_counter() - started)
        if report["errors"]:
            error = next(iter(report["errors"].values()))
            failed = f"{len(report['errors'])} of {len(results)} matrices failed"
            warnings.warn(f"{failed}, first {error}; Scan.errors has all of them", stacklevel=2)
        return Scan(self, report, forecast)

    @cached_property
    def verdict(self) -> Diagnosis:
        """Whether the rule may be trusted on the model: of a scan, which is made where there was none.

        Raises
        ------
        SpectrumError
            If no matrix could be decomposed.
        """
        return self.scan().verdict

    def report(
        self,
        out: str | Path,
        *,
        weights: Sequence[str] = (),
        evidence: str | Path | None = None,
        against: str | Path | None = None,
        workers: int | None = None,
    ) -> Path:
        """Write verdict, map, tables, Figure 4 and plan as one HTML file to read, print and send; scan first.

        Parameters
        ----------
        out : str or Path
            The file, ``.html``.
        weights : sequence of str
            Of which Figure 4 is drawn; the three of the largest update by default.
        evidence : str or Path, optional
            Scores that ``recovery --json`` has assessed, as a part of it.
        against : str or Path, optional
            Another report's values, which ``report --save`` has written: it is said what differs.
        workers : int, optional
            Processes of the scan.

        Raises
        ------
        ExportError, StateError
            If it cannot be written, would be too large, or a file cannot be read.

        Examples
        --------
        >>> import dgviz
        >>> pair = dgviz.open_pair("pair/base", "pair/noisy")
        >>> pair.report("report.html", weights=["classifier.weight"]).name
        'report.html'
        """
        from dgviz.analysis import model_report
        from dgviz.figures.report import draw_weights, map_figures, report_page, write_page

        file = check_ending(Path(out).expanduser(), PAGE)
        self.checkpoints.refuse_output(file)
        scores = model_report.read_evidence(evidence) if evidence is not None else None
        other = model_report.read_model_report(against) if against is not None else None
        errors = self.scan(workers=workers).errors
        found = model_report.report_model(self.checkpoints, self.repair_plan, errors, scores)
        chosen = [self[name].weight for name in weights] or found.largest()
        found = replace(found, lens=lens_table(self.checkpoints, self.repair_plan, chosen, self.device))
        figures = [*map_figures(found.rows), *draw_weights(found, chosen, self.device)]
        different = model_report.differences(found.to_json(), other) if other else []
        return write_page(file, report_page(found, figures, different))

    def repair(
        self,
        out: str | Path,
        *,
        format: str = "full",
        force: bool = False,
        allow_code: bool = False,
        base_name: str = "",
        workers: int | None = None,
        progress: bool = False,
    ) -> "Repaired":
        """Write the repaired checkpoint; one that was interrupted goes on from its finished files.

        Parameters
        ----------
        out : str or Path
            A new or empty folder.
        format : str
            ``"full"``, ``"lora"`` or ``"factors"``.
        force : bool
            Repair although base and tuned have nothing in common, or tensors that differ in shape stay tuned's.
        allow_code : bool
            Carry ``*.py`` files over; they are never run.
        base_name : str
            What base is called on the Hugging Face Hub.
        workers : int, optional
            Processes; one per core where the work is worth it.
        progress : bool
            Whether to draw a bar on standard error.

        Raises
        ------
        PairError, ExportError
            If something blocks the repair, or the output cannot be written.

        Examples
        --------
        >>> import dgviz
        >>> done = dgviz.open_pair("pair/base", "pair/noisy").repair("repaired")
        >>> done
        <Repaired repaired: 26 of 26 tensors changed>
        >>> done.report["counts"]
        {'repair': 26, 'keep': 46, 'base_only': 0}
        """
        from tqdm import tqdm

        own = self.repair_plan
        if base_name:
            check_repository(base_name)
        pair = open_repairable(*self.paths, own.include, own.exclude, force)
        plan = plan_export(pair, own, out, format, allow_code, base_name, None)
        executor = hire(pair.tensors, [own], self.device, workers)
        from dgviz.export.write import ExportResult, iter_export  # torch is imported while other processes start

        bar = tqdm(total=plan.total_bytes, desc="repair", unit="B", unit_scale=True, disable=not progress)
        with closing(executor), closing(iter_export(plan, executor)) as export, bar:
            for item in export:
                if isinstance(item, ExportResult):
                    break
                bar.update(plan.written_bytes(item.name))
        return Repaired(plan.out, dict(item.report))


@dataclass(frozen=True, eq=False, repr=False)
class Scan:
    """What a plan makes of every weight of a model.

    Attributes
    ----------
    pair : Pair
        What was scanned.
    report : dict
        All of it, as ``scan --json`` prints it.
    forecast : Forecast
        What DG-Hard would do, or why that is not known.

    Examples
    --------
    >>> import dgviz, pandas
    >>> scan = dgviz.open_pair("pair/base", "pair/noisy").scan()
    >>> pandas.DataFrame(scan.weights).groupby("class")["rank"].sum().to_dict()
    {'MLP': 6, 'attention': 68, 'embedding': 5, 'head': 1}
    """

    pair: Pair
    report: dict[str, Any]
    forecast: Forecast

    def __repr__(self) -> str:
        failed = f", {len(self.errors)} failed" if self.errors else ""
        word = f": {self.verdict.word}" if self.report["model"] else ""
        return f"<Scan of {self.pair!r}{word}{failed}>"

    @property
    def errors(self) -> Mapping[str, str]:
        """Why matrices have no figures, by name."""
        return self.report["errors"]

    @property
    def verdict(self) -> Diagnosis:
        """Whether the rule may be trusted on the model, why, and what to do first.

        Raises
        ------
        SpectrumError
            If no matrix could be decomposed.
        """
        if self.report["model"] is None:
            raise SpectrumError(
                f"no matrix could be decomposed, so there is no verdict: {next(iter(self.errors.values()))}"
            )
        return Diagnosis.from_json(self.report["model"])

    @cached_property
    def assessments(self) -> tuple[Assessment, ...]:
        """Every matrix with its spectrum and threshold, in the order of the checkpoint."""
        spectra = read_spectra(self.pair.checkpoints, hash_bytes=2**63)
        return tuple(assess(stored, *self.pair.repair_plan.rule_of(stored.weight)) for stored in spectra.weights)

    @property
    def weights(self) -> Table:
        """Every matrix with its threshold and figures; percentages are from 0 to 100."""
        return weight_table(self.assessments)

    @property
    def noise(self) -> Table:
        """Noise by class of weight and by depth, as ``noise --json`` has it; shares from 0 to 1."""
        return noise_groups(self.assessments)


@dataclass(frozen=True, eq=False, repr=False)
class Update:
    """One matrix of a pair: what training added to it, under the pair's plan.

    Attributes
    ----------
    pair : Pair
        Whose it is.
    weight : Weight
        Which.

    Examples
    --------
    >>> import dgviz
    >>> update = dgviz.open_pair("pair/base", "pair/noisy")["classifier.weight"]
    >>> update.spectrum.s.shape, update.spectrum.shape
    ((10,), (10, 128))
    >>> update.figure4().startswith("<svg")
    True
    """

    pair: Pair
    weight: Weight

    def __repr__(self) -> str:
        return f"<Update {self.weight.name}, {self.weight.shape[0]} x {self.weight.shape[1]}>"

    @cached_property
    def spectrum(self) -> Spectrum:
        """All singular values and how they were obtained: from the store, or computed and stored."""
        from dgviz.spectra.open_weight import OpenWeight

        rule, params, _ = self.pair.repair_plan.rule_of(self.weight)
        return OpenWeight(self.weight, self.pair.device).spectrum_with(rule, params)

    @property
    def threshold(self) -> Threshold:
        """What the plan's rule finds in it: tau, sigma, edge, rank."""
        rule, params, _ = self.pair.repair_plan.rule_of(self.weight)
        return apply_rule(self.spectrum, rule, params)

    @property
    def figures(self) -> dict[str, Any]:
        """Everything that ``scan --json`` says of a matrix."""
        return matrix_row(self.spectrum, *self.pair.repair_plan.rule_of(self.weight))

    def figure4(self, file: str | Path | None = None) -> Picture:
        """Draw Figure 4 under the plan's threshold; a notebook shows it.

        Parameters
        ----------
        file : str or Path, optional
            Also write it there, ``.svg`` or ``.png``.

        Raises
        ------
        PairError
            If the plan keeps one side's values here, so that there is no threshold.
        ExportError
            If the file cannot be written.
        """
        from dgviz.figures.figure4.draw import draw_figure4

        found = self.pair.checkpoints
        if file is not None:
            found.refuse_output(check_ending(Path(file).expanduser(), PICTURE))
        sides = found.base.path.name, found.tuned.path.name
        picture = Picture(draw_figure4(self.weight, self.pair.repair_plan, sides, self.pair.device))
        if file is not None:
            picture.save(file)
        return picture

    def lens(self, *numbers: int) -> list[Reading]:
        """Read directions through base's vocabulary: the tokens at their two ends, beside what random ones have.

        Parameters
        ----------
        numbers : int
            Which directions, the strongest being 1.

        Raises
        ------
        LensError
            If base has no tokens, or the weight neither reads nor writes their residual stream.
        SpectrumError
            If a direction is not there.
        """
        from dgviz.spectra.open_weight import OpenWeight

        return read_directions(self.pair.checkpoints.base, OpenWeight(self.weight, self.pair.device), numbers)

    def widget(self) -> Any:
        """Return Figure 4 that follows tau, for a notebook; needs the extra ``dgviz[notebook]``.

        Returns
        -------
        Figure4Widget
            `tau` and `rank` are where its line stands, and `override` is what a plan says so as to cut there.

        Raises
        ------
        PackageError
            If anywidget is not installed.
        PairError
            If the plan keeps one side's values here.

        Examples
        --------
        >>> import dgviz
        >>> widget = dgviz.open_pair("pair/base", "pair/noisy")["classifier.weight"].widget()
        >>> widget.rank
        1
        """
        need("A figure that follows tau in a notebook", "anywidget")
        from dgviz.figures.figure4.notebook import Figure4Widget

        return Figure4Widget(self.weight, self.pair.repair_plan, self.pair.device)


@dataclass(frozen=True, eq=False, repr=False)
class Repaired:
    """A repaired checkpoint that was written.

    Attributes
    ----------
    path : Path
        Its folder, which transformers loads.
    report : dict
        What was written and how, as the two reports in the folder have it: plan, files, a row per tensor.
    """

    path: Path
    report: dict[str, Any]

    def __repr__(self) -> str:
        changes = Changes.of(self.report["tensors"].values())
        return f"<Repaired {self.path}: {changes.changed} of {changes.repairable} tensors changed>"
