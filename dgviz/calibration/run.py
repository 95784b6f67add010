"""A calibration: pair after pair into a folder, from which a run that was stopped goes on."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from dgviz.calibration.recipes import ALPHAS, BASES, FULL, LORA, RUNS, Run
from dgviz.errors import DgvizError
from dgviz.files import write_file, write_json
from dgviz.jobs.executor import Executor, NamedTask, Processes
from dgviz.repair.methods import METHODS

_SETTINGS = "calibration.json"
_PAIRS = "pairs", "dgviz.calibration.measure", "measure_run"  # what is written, and by which function of a worker
_METHODS = "methods", "dgviz.calibration.methods", "measure_methods"


def iter_calibration(
    directory: str | Path,
    runs: Sequence[Run] = RUNS,
    workers: int | Executor = 1,
    steps: int | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> Iterator[dict[str, Any]]:
    """Measure pairs, yielding the result of each: those that are there already first, then as they are done.

    Parameters
    ----------
    directory : str or Path
        New, or that of a calibration with the same settings, which goes on. ``pairs/NAME.json`` are the results,
        ``bases/NAME`` and ``checkpoints/NAME`` the models.
    runs : sequence of Run
        What to measure; runs of one base follow each other.
    workers : int or Executor
        Processes, of one thread each, or where else; a base and its fine-tunes are one task after the other.
    steps : int, optional
        At most so many steps of every training, to try it out.
    alphas : sequence of float
        Strengths of WiSE-FT that are scored.

    Yields
    ------
    dict
        As `dgviz.calibration.measure.measure_run` returns it.

    Raises
    ------
    DgvizError
        If the folder is in use or holds a calibration with other settings, or a training diverges.
    """
    folder = Path(directory).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            _check_settings(folder, steps)
            yield from _iter(folder, runs, workers, _PAIRS, {"steps": steps, "alphas": tuple(alphas)})
    except Timeout:
        raise _busy(folder) from None


def iter_methods(
    directory: str | Path, runs: Sequence[Run] = RUNS, workers: int | Executor = 1
) -> Iterator[dict[str, Any]]:
    """Measure every repair method on the pairs that lie in a calibration's folder, going on where it was stopped.

    Parameters
    ----------
    directory, runs, workers
        As for `iter_calibration`; runs whose checkpoints are not there are left out. ``methods/NAME.json`` are the
        results.

    Yields
    ------
    dict
        As `dgviz.calibration.methods.measure_methods` returns it.

    Raises
    ------
    DgvizError
        If the folder is in use or holds none of the pairs.
    """
    folder = Path(directory).expanduser()
    there = [run for run in runs if (folder / "checkpoints" / run.name).is_dir()]
    if not there:
        raise DgvizError(f"{folder} holds none of these pairs: make them first, by dgviz calibrate {folder}")
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield from _iter(folder, there, workers, _METHODS, {})
    except Timeout:
        raise _busy(folder) from None


def _busy(folder: Path) -> DgvizError:
    return DgvizError(f"another calibration is writing into {folder}: wait for it, or choose a new folder")


def read_results(directory: Path, runs: Sequence[Run] = RUNS, kind: str = "pairs") -> list[dict[str, Any]]:
    """Return the results, of ``pairs`` or of ``methods``, in a calibration's folder, in the order of the runs."""
    files = (directory / kind / f"{run.name}.json" for run in runs)
    return [orjson.loads(file.read_bytes()) for file in files if file.exists()]


def write_methods(directory: Path, runs: Sequence[Run] = RUNS) -> Path:
    """Write the table of all methods on all pairs measured, as the package has it; return where.

    The package's own is ``dgviz/forecast/methods.json``.
    """
    results = read_results(directory, runs, "methods")
    lines = ",\n".join(json.dumps(row) for row in results)
    titles = {name: method.title for name, method in METHODS.items()}
    write_file(directory / "methods.json", f'{{"methods": {json.dumps(titles)},\n"pairs": [\n{lines}\n]}}\n'.encode())
    return directory / "methods.json"


def write_table(directory: Path, runs: Sequence[Run] = RUNS) -> Path:
    """Write the table of all results that lie in a calibration's folder, as the package has it; return where.

    The package's own is ``dgviz/forecast/pairs.json``.
    """
    results = read_results(directory, runs)
    data = sorted({text for result in results for text in result["data"].split(", ")})
    versions = {json.dumps(result["versions"], sort_keys=True) for result in results}
    made = {"data": data, "versions": [json.loads(text) for text in sorted(versions)]}
    left_out = ("data", "versions")
    rows = [{name: value for name, value in result.items() if name not in left_out} for result in results]
    lines = ",\n".join(json.dumps(row) for row in rows)  # a pair is a line, so that a change shows where it is
    text = f'{{"made": {json.dumps(made)},\n"pairs": [\n{lines}\n]}}\n'
    write_file(directory / "table.json", text.encode())
    return directory / "table.json"


def _check_settings(folder: Path, steps: int | None) -> None:
    """Write down how everything is made, or refuse a folder where it was made otherwise."""
    recipes = {name: dataclasses.asdict(recipe) for name, recipe in (BASES | FULL | LORA).items()}
    settings, file = {"recipes": recipes, "steps": steps}, folder / _SETTINGS
    if file.exists() and orjson.loads(file.read_bytes()) != settings:
        raise DgvizError(f"{folder} holds a calibration with other recipes or steps: choose a new folder")
    write_json(file, settings)


def _iter(
    folder: Path, runs: Sequence[Run], workers: int | Executor, task: tuple[str, str, str], settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield what is there, then what the workers measure."""
    kind, module, function = task
    yield from read_results(folder, runs, kind)
    left = [run for run in runs if not (folder / kind / f"{run.name}.json").exists()]
    groups = [list(group) for _, group in groupby(left, key=lambda run: run.base)]
    executor = Processes(max(1, min(workers, len(groups)))) if isinstance(workers, int) else workers
    measure = NamedTask(module, function)

    def submit(group: list[Run]) -> Future:
        return executor.submit(measure, run=group[0], directory=folder, **settings)

    with closing(executor):
        waiting = {submit(group): group for group in groups}
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                rest = waiting.pop(future)[1:]
                result = future.result()
                if rest:  # of one base, which the first of them has made
                    waiting[submit(rest)] = rest
                yield result
