"""``repair``: write the repaired checkpoint."""

import argparse
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from dgviz.cli.options import chosen_pair, print_result, repair_plan, warn, warn_surprising
from dgviz.cli.progress import Progress
from dgviz.errors import CommandError
from dgviz.export import plan_export
from dgviz.export.loading import Loading
from dgviz.export.push import check_repository, push, refuse_local_base
from dgviz.jobs import JobReporter
from dgviz.repair.hire import hire
from dgviz.repair.report import Changes
from dgviz.words import duration, size


def run(options: argparse.Namespace) -> int:
    """Write the repaired checkpoint."""
    repair = repair_plan(options)
    if options.private and not options.push_to:
        raise CommandError("--private changes nothing: nothing is uploaded; give --push-to ORG/NAME, or leave it out")
    for name in filter(None, (options.base_name, options.push_to)):
        check_repository(name)
    pair = chosen_pair(options)
    check = options.check_logits or None  # by default where there is memory for it
    plan = plan_export(pair, repair, options.out, options.format, options.allow_code, options.base_name, check)
    if options.push_to:
        refuse_local_base(plan)
    warn_surprising(pair)
    reporter = JobReporter.from_environment()
    executor = hire(plan.pair.tensors, [plan.repair], options.device, options.workers, options.ray)
    with closing(executor), Loading(plan, executor) as loading:
        loading.prepare(plan.total_bytes)
        from dgviz.export.write import ExportResult, iter_export  # torch is imported while other processes start

        export = iter_export(plan, executor, loading)
        bar, started = Progress("repair", plan.total_bytes, unit="B", unit_scale=True), time.perf_counter()
        with closing(export), bar as progress:
            for item in export:
                if isinstance(item, ExportResult):
                    break
                progress.tell(plan.written_bytes(item.name), item.name, tensors=len(plan.pair.tensors))
    summary = {key: value for key, value in item.report.items() if key not in ("tensors", "inputs")}
    summary["seconds"] = round(time.perf_counter() - started - item.checking, 3)
    if options.push_to:
        reporter.progress(plan.total_bytes, plan.total_bytes, f"uploading to {options.push_to}")
        summary["address"] = push(plan.out, options.push_to, options.private)
    reporter.finish({"out": str(plan.out), **summary}, "done")
    report = {**item.report, **summary}
    print_result(options, report, lambda: _print_repair(plan.out, report))
    return 0


def _print_repair(out: Path, report: dict[str, Any]) -> None:
    """Print what was written, in words."""
    from dgviz.export.card import checked_words

    changes = Changes.of(report["tensors"].values())
    warn(report["warnings"])
    gain = "" if report["overall"]["gain"] is None else f", gain {report['overall']['gain']:.4f}"
    print(
        f"wrote {out}: {size(report['total_bytes'])} in {len(report['files'])} file(s), {changes.words}{gain}, "
        f"{duration(report['seconds'])}"
    )
    for check in ("transformers", "logits"):
        if check in report["verified"]:
            print(f"{check}: {checked_words(report['verified'][check])}")
    if "loading" in report:
        print(f"adapter: {report['loading']}")
    if "address" in report:
        print(f"uploaded it to {report['address']}")
