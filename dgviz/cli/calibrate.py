"""``calibrate``: the pairs that the forecast is made from, trained, repaired and scored again."""

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgviz.checkpoint.selection import Selection
from dgviz.cli.options import print_columns, print_result
from dgviz.cli.progress import Progress
from dgviz.errors import DgvizError
from dgviz.forecast import Calibration, read_pairs
from dgviz.forecast.methods import METHOD_TITLES, method_rows, read_methods
from dgviz.forecast.report import FIT_TITLES, PAIR_TITLES, fit_rows, pair_rows
from dgviz.forecast.words import averaging_words, control_words
from dgviz.jobs.executor import Executor
from dgviz.packages import need

if TYPE_CHECKING:
    from dgviz.calibration import Run

_SEEN = ".lock"  # a file of the folder


def run(options: argparse.Namespace) -> int:
    """Measure every pair that has no result yet, and print the table of all of them."""
    need("calibrate", "transformers", "peft", "sklearn")
    from dgviz.calibration import LARGER_RUNS, RUNS, iter_calibration, write_table

    chosen = Selection(options.pairs or "", "")
    known = (*RUNS, *LARGER_RUNS) if options.fits and options.pairs else RUNS
    runs = [run for run in known if not chosen.drops(run.name)]
    if not runs:
        raise DgvizError(f"no pair matches {options.pairs}; there are {', '.join(run.name for run in RUNS)}")
    folder = Path(options.directory).expanduser()
    if options.methods:
        return _measure_methods(options, folder, runs)
    if options.fits:
        return _judge_fits(options, folder, runs)
    measured = iter_calibration(folder, runs, _workers(options, folder), options.steps)
    with closing(measured), Progress("calibrate", len(runs), unit="pair") as progress:
        for result in measured:
            progress.tell(1, result["name"])
    file = write_table(folder)
    found = Calibration(read_pairs(file))
    result = {"table": str(file), **_worth(found)}
    print_result(options, result, lambda: _print(found, result))
    return 0


def _workers(options: argparse.Namespace, folder: Path) -> int | Executor:
    """Return in how many processes pairs are measured, or on which cluster, whose nodes see the folder."""
    if not options.ray:
        return options.workers
    from dgviz.jobs.ray_cluster import RayCluster

    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SEEN).touch()
    return RayCluster(options.ray, "cpu", options.workers if options.workers > 1 else None, [folder / _SEEN])


def _measure_methods(options: argparse.Namespace, folder: Path, runs: "Sequence[Run]") -> int:
    """Measure every method on pairs that lie there and have no result yet, and print the table of all of them."""
    from dgviz.calibration import iter_methods, write_methods

    measured = iter_methods(folder, runs, _workers(options, folder))
    with closing(measured), Progress("methods", len(runs), unit="pair") as progress:
        for result in measured:
            progress.tell(1, result["name"])
    file = write_methods(folder)
    found = read_methods(file)
    rows = method_rows(found)
    result = {"table": str(file), "pairs": len(found.pairs), "counted": len(found.counted)}
    result["methods"] = [dict(zip(METHOD_TITLES, row, strict=True)) for row in rows]
    print_result(options, result, lambda: print_columns(METHOD_TITLES, rows))
    return 0


def _judge_fits(options: argparse.Namespace, folder: Path, runs: "Sequence[Run]") -> int:
    """Judge `fit` on every pair and seed that has no result yet, and print what it brings."""
    from dgviz.calibration.fits import iter_fits, summarise_fits, write_fits

    if options.workers > 1 or options.ray:
        raise DgvizError("fits are judged one after the other: leave out --workers and --ray")
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    with closing(iter_fits(folder, runs, options.fits, options.steps)) as fits, Progress("fits", None) as progress:
        for result in fits:
            results.append(result)
            progress.tell(1, f"{result['name']}, seed {result['seed']}")
    rows, table = summarise_fits(results), str(write_fits(folder))
    print_result(
        options, {"table": table, "fits": results, "summary": rows}, lambda: print_columns(_FITS, map(_fit_row, rows))
    )
    return 0


_FITS = ("metric", "scales a matrix", "keep, %", "healed above WiSE-FT, points", "bases", "pairs", "kept, % (true)")


def _fit_row(row: dict[str, Any]) -> list[str]:
    """Return a row of the summary as text."""
    ahead = f"{row['mean']:.1f} ± {row['stderr']:.1f}" if row["stderr"] is not None else f"{row['mean']:.1f}"
    counts = str(len(row["bases"])), f"{row['better']} of {row['pairs']}"
    return [row["metric"], str(1 + row["split"]), f"{row['keep']:g}", ahead, *counts, f"{row['target_kept']:.1f}"]


def _worth(found: Calibration) -> dict[str, Any]:
    """Return what the pairs say, as plain values."""
    counted = len(found.counted)
    worth = {"pairs": len(found.pairs), "counted": counted, "families": found.families}
    worth |= {"wise_ft": averaging_words(found), "norm_matched": control_words(found)}
    if len(found.families) > 1:
        worth["outcomes"] = {
            name: {
                "rank_correlation": outcome.correlation,
                "left_out": [vars(left) for left in outcome.left_out],
                "refused": found.refusal(name) or None,
            }
            for name, outcome in found.outcomes.items()
        }
    return worth


def _print(found: Calibration, result: dict[str, Any]) -> None:
    """Print the pairs, the fit's worth, and the sentences made from them."""
    print_columns(PAIR_TITLES, pair_rows(found.pairs))
    if "outcomes" in result:
        print()
        print_columns(FIT_TITLES, fit_rows(found))
        for name, outcome in result["outcomes"].items():
            print(f"{name}: rank correlation {outcome['rank_correlation']:.2f}", end="")
            print(f"; no number: {outcome['refused']}" if outcome["refused"] else "")
    print(f"WiSE-FT: {result['wise_ft']}\nnorm_matched: {result['norm_matched']}\nwrote {result['table']}")
