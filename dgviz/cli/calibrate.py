"""``calibrate``: the pairs that the forecast is made from, trained, repaired and scored again."""

import argparse
from contextlib import closing
from pathlib import Path

from dgviz.cli.options import print_result
from dgviz.cli.progress import Progress
from dgviz.errors import DgvizError


def run(options: argparse.Namespace) -> int:
    """Measure every pair that has no result yet."""
    from dgviz.calibration import RUNS, iter_calibration, read_results
    from dgviz.checkpoint.selection import Selection

    chosen = Selection(options.pairs or "", "")
    runs = [run for run in RUNS if not chosen.drops(run.name)]
    if not runs:
        raise DgvizError(f"no pair matches {options.pairs}; there are {', '.join(run.name for run in RUNS)}")
    folder = Path(options.directory).expanduser()
    measured = iter_calibration(folder, runs, options.workers, options.steps)
    with closing(measured), Progress("calibrate", len(runs), unit="pair") as progress:
        for result in measured:
            progress.tell(1, result["name"])
    results = read_results(folder, runs)
    print_result(options, results, lambda: print(len(results)))
    return 0
