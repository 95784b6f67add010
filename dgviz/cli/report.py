"""``report``: all that is known of a pair under a plan, as one file to be read, printed and sent."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dgviz.analysis.lens import lens_table
from dgviz.analysis.model_report import (
    ModelReport,
    differences,
    read_evidence,
    read_model_report,
    report_model,
)
from dgviz.cli.compare_methods import save_result
from dgviz.cli.options import print_result, report_failures, rule_plan, seen_pair
from dgviz.cli.scan import scan_pair
from dgviz.figures.report import draw_weights, map_figures, report_page, write_page, write_parts
from dgviz.jobs import JobReporter
from dgviz.spectra.weight import find_weight
from dgviz.table import Table
from dgviz.words import size, some


def run(options: argparse.Namespace) -> int:
    """Scan what is not scanned, and write the report; a matrix without figures makes the status 1."""
    evidence = read_evidence(options.evidence) if options.evidence else None
    other = read_model_report(options.against) if options.against else None
    pair = seen_pair(options)
    plan = rule_plan(options, pair)
    weights = [find_weight(pair, name) for name in options.weight]
    scanned, _ = scan_pair(pair, plan, device=options.device, workers=options.workers)
    report = report_model(pair, plan, scanned["errors"], evidence)
    weights = weights or report.largest()
    report = dataclasses.replace(report, lens=lens_table(pair, plan, weights, options.device))
    figures = [*map_figures(report.rows), *draw_weights(report, weights, options.device)]
    found = report.to_json()
    different = differences(found, other) if other else []
    page = report_page(report, figures, different)
    written = [write_page(Path(options.out).expanduser(), page)]
    if options.files:
        written += write_parts(Path(options.files).expanduser(), figures, [*report.tables.values(), *different])
    save_result(options, found)
    told = {table.name: list(table) for table in different}
    result = {"out": str(written[0]), "bytes": len(page.encode()), "files": list(map(str, written[1:]))}
    result |= {"weights": [weight.name for weight in weights], "differences": told, "report": found}
    JobReporter.from_environment().finish({key: value for key, value in result.items() if key != "report"})
    print_result(options, result, lambda: _print(report, written, different))
    return report_failures("report", report.errors)


def _print(report: ModelReport, written: Sequence[Path], different: Sequence[Table]) -> None:
    """Say what was written, the verdict, and what differs."""
    print(f"The rule {report.verdict.word}. {report.forecast.sentence}")
    for table in different:
        if len(table):
            names = dict.fromkeys(table[table.columns[0]])
            print(f"{len(names)} {table.name}: {some(names, 8)}")
        else:
            print(f"no {table.name}")
    more = f", and {len(written) - 1} files in {written[1].parent}" if len(written) > 1 else ""
    print(f"wrote {written[0]}: {size(written[0].stat().st_size)}{more}")
