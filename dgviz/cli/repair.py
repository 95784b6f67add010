"""``repair``: write the repaired checkpoint."""

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dgviz.cli.options import add_method, add_pair, add_rule, chosen_pair, print_json, repair_plan
from dgviz.export import plan_export
from dgviz.jobs import JobReporter


def add_command(commands: "argparse._SubParsersAction") -> None:
    """Add the command to the grammar.

    Parameters
    ----------
    commands : argparse subparsers
        Of the whole command line.
    """
    repair = commands.add_parser("repair", help="write the repaired checkpoint")
    add_pair(repair)
    repair.add_argument("out", metavar="OUT", help="output folder, new or empty")
    add_rule(repair)
    add_method(repair)
    repair.set_defaults(run=_repair)


def _repair(options: argparse.Namespace) -> int:
    """Write the repaired checkpoint."""
    from dgviz.export.write import ExportResult, iter_export

    plan = plan_export(chosen_pair(options), repair_plan(options), options.out)
    reporter = JobReporter.from_environment()
    export = iter_export(plan, options.device)
    with tqdm(total=plan.total_bytes, unit="B", unit_scale=True, desc="repair", file=sys.stderr) as bar:
        for item in export:
            if isinstance(item, ExportResult):
                break
            bar.set_postfix_str(item.name[-40:], refresh=False)
            bar.update(plan.written_bytes(item.name))
            reporter.progress(bar.n, plan.total_bytes, item.name, tensors=len(plan.pair.tensors))
            if reporter.cancelled():
                export.close()
                reporter.finish({"out": str(plan.out)}, "cancelled")
                print(f"dgviz repair: cancelled; repeat the command to finish {plan.out}", file=sys.stderr)
                return 1
    summary = {key: value for key, value in item.report.items() if key != "tensors"}
    reporter.finish({"out": str(plan.out), **summary}, "done")
    if options.json:
        print_json(item.report)
    else:
        _print_repair(plan.out, item.report)
    return 0


def _print_repair(out: Path, report: dict[str, Any]) -> None:
    """Print what was written, in words."""
    repaired = [row for row in report["tensors"].values() if row["action"] == "repair"]
    computed = sum(row["written"] == "repaired" for row in repaired)
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"wrote {out}: {report['total_bytes'] / 2**20:.1f} MiB in {len(report['shards'])} file(s), {computed} of "
        f"{len(repaired)} repairable tensors changed, {report['seconds']:.1f} s"
    )
