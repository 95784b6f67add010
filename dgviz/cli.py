"""The stages on the command line: ``python -m dgviz inspect | spectrum | scan | repair | demo``.

Results go to standard output (``--json`` for machines), progress to standard error. Exit status: 0 done, 2 unusable
input (one line on standard error), 1 failure.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

import dgviz
from dgviz.checkpoint import CheckpointPair, open_pair
from dgviz.errors import DgvizError, ThresholdError
from dgviz.export import plan_export
from dgviz.jobs import JobReporter
from dgviz.plan import OUTPUT_DTYPES, RepairPlan, json_number
from dgviz.schedule import plan_tasks
from dgviz.survey import ScannedMatrix, iter_scan, scan_report
from dgviz.threshold import RULES, find_rule

_NUMBERS = "rank", "tau", "sigma", "edge", "energy_kept"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with status 2."""
        line = f"{self.prog}: {message}; see {self.prog} --help".replace("\n", "\\n")
        self.exit(2, line + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program's name; default ``sys.argv[1:]``.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names are Unicode, terminals need not be
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except DgvizError as error:
        _complain(options.command, error)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"dgviz {options.command}: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        _complain(options.command, error)
        return 1


def _complain(command: str, error: Exception) -> None:
    """Print an error as one line: names may hold line breaks."""
    print(f"dgviz {command}: {error}".replace("\n", "\\n"), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = _Parser(prog="dgviz", description=dgviz.__doc__)
    parser.add_argument("--version", action="version", version=f"dgviz {dgviz.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="what would happen to every tensor of a pair")
    _add_pair(inspect)
    inspect.set_defaults(run=_inspect)

    spectrum = commands.add_parser("spectrum", help="singular values and threshold of one weight's update")
    _add_pair(spectrum)
    spectrum.add_argument("tensor", metavar="TENSOR", help="name of a tensor in both checkpoints")
    _add_rule(spectrum)
    spectrum.set_defaults(run=_spectrum)

    scan = commands.add_parser("scan", help="spectrum and figures of every weight's update, into the store")
    _add_pair(scan)
    _add_rule(scan)
    scan.add_argument("--workers", type=int, metavar="N", help="processes; default one per core, or one per GPU")
    scan.set_defaults(run=_scan)

    repair = commands.add_parser("repair", help="write the repaired checkpoint")
    _add_pair(repair)
    repair.add_argument("out", metavar="OUT", help="output folder, new or empty")
    _add_rule(repair)
    repair.add_argument("--dtype", default="auto", choices=OUTPUT_DTYPES)
    repair.set_defaults(run=_repair)

    demo = commands.add_parser("demo", help="write the built-in pair out")
    demo.add_argument("directory", metavar="DIR", help="new or empty folder")
    kind = demo.add_mutually_exclusive_group()
    kind.add_argument("--train", action="store_true", help="train the checkpoints again instead of copying them")
    kind.add_argument("--figure4", action="store_true", help="one 8192 x 3072 weight with 30 planted directions")
    demo.add_argument("--json", action="store_true", help="machine-readable result on standard output")
    demo.set_defaults(run=_demo)
    return parser


def _add_pair(parser: argparse.ArgumentParser) -> None:
    """Add what every command on a pair takes."""
    parser.add_argument("base", metavar="BASE", help="checkpoint before fine-tuning")
    parser.add_argument("tuned", metavar="TUNED", help="checkpoint after fine-tuning")
    parser.add_argument("--include", metavar="RE", help="repair only tensors whose name matches")
    parser.add_argument("--exclude", metavar="RE", help="keep tuned's bytes of tensors whose name matches")
    parser.add_argument("--json", action="store_true", help="machine-readable result on standard output")


def _add_rule(parser: argparse.ArgumentParser) -> None:
    """Add the threshold rule and the device."""
    parser.add_argument("--rule", default="dg_hard", metavar="R", help=f"threshold rule: {', '.join(RULES)}")
    parser.add_argument(
        "--rule-param", action="append", default=[], metavar="K=V", help="a parameter of the rule, e.g. tau=0.5"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 ...")


def _rule_params(options: argparse.Namespace) -> dict[str, Any]:
    """Return the rule's parameters, defaults included."""
    given = {}
    for item in options.rule_param:
        name, equals, value = item.partition("=")
        if not equals:
            raise ThresholdError(f"--rule-param takes NAME=VALUE; got {item!r}")
        given[name] = value
    return find_rule(options.rule).checked(given)


def _pair(options: argparse.Namespace) -> CheckpointPair:
    """Open both checkpoints."""
    return open_pair(options.base, options.tuned, options.include, options.exclude)


def _print_json(value: Any) -> None:
    """Print one JSON document, in plain ASCII: valid whatever the terminal's encoding."""
    sys.stdout.write(json.dumps(json_number(value), indent=2, allow_nan=False) + "\n")


def _inspect(options: argparse.Namespace) -> int:
    """Print every tensor's fate."""
    pair = _pair(options)
    rows = []
    for item in pair.tensors:
        info = item.tuned or item.base
        rows.append(
            {
                "name": item.name,
                "shape": list(info.shape),
                "dtype": info.dtype,
                "action": item.action,
                "reason": item.reason,
            }
        )
    if options.json:
        _print_json({"tensors": rows, "counts": pair.counts()})
        return 0
    _print_columns(
        ("action", "shape", "dtype", "name", "reason"),
        [(r["action"], " x ".join(map(str, r["shape"])), r["dtype"], r["name"], r["reason"]) for r in rows],
    )
    print("\n" + ", ".join(f"{count} {action}" for action, count in pair.counts().items()))
    return 0


def _print_columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with aligned columns."""
    table = [titles, *rows]
    widths = [max(len(str(row[column])) for row in table) for column in range(len(titles) - 1)]
    for row in table:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1], sep="  ")


def _spectrum(options: argparse.Namespace) -> int:
    """Print one weight's spectrum and threshold."""
    from dgviz.scan import spectrum_report

    params = _rule_params(options)
    report = spectrum_report(_pair(options), options.tensor, options.rule, params, options.device)
    if options.json:
        _print_json(report)
        return 0
    for name in ("name", "shape", "beta", *_NUMBERS, "mp_fit", "route", "warnings"):
        print(f"{name:12}  {report[name]}")
    return 0


def _scan(options: argparse.Namespace) -> int:
    """Scan every weight; a weight that fails is named at the end, and the others are done."""
    started = time.perf_counter()
    pair = _pair(options)
    total = sum(task.work for task in plan_tasks(pair))
    reporter = JobReporter.from_environment()
    results: list[ScannedMatrix] = []
    stored = 0
    scan = iter_scan(pair, options.rule, _rule_params(options), options.device, options.workers, heartbeat=0.5)
    shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} < {remaining}{postfix}"
    with tqdm(total=total, desc="scan", bar_format=shape, file=sys.stderr) as bar:
        for result in scan:
            if result is not None:
                results.append(result)
                bar.set_postfix_str(result.label[-40:], refresh=False)
                bar.update(result.work)
                stored += result.row is not None and result.row["stored"]
                reporter.progress(bar.n, total, result.label, matrices=len(results), stored=stored)
            if reporter.cancelled():
                scan.close()
                reporter.finish({"matrices": len(results)}, "cancelled")
                print("dgviz scan: cancelled; repeat the command to go on from here", file=sys.stderr)
                return 1
    report = scan_report(pair, results, time.perf_counter() - started)
    errors = report["errors"]
    summary = {
        "weights": len(report["weights"]),
        **{name: report[name] for name in ("stored", "computed", "seconds")},
    }
    if errors:
        summary["error"] = f"{len(errors)} of {len(results)} matrices failed, first {next(iter(errors.items()))[1]}"
    reporter.finish({**summary, "errors": errors}, "failed" if errors else "done")
    if options.json:
        _print_json(report)
    else:
        _print_scan(report)
    for name, error in errors.items():
        print(f"dgviz scan: {name} failed: {error}", file=sys.stderr)
    return 1 if errors else 0


def _print_scan(report: dict[str, Any]) -> None:
    """Print one line per weight, and what is odd about them."""
    rows = [
        (*(_range(row[name]) for name in _NUMBERS), " x ".join(map(str, row["shape"])), name)
        for name, row in report["weights"].items()
    ]
    _print_columns((*_NUMBERS, "shape", "name"), rows)
    for name, row in report["weights"].items():
        for warning in row["warnings"]:
            print(f"warning: {name}: {warning}", file=sys.stderr)
    print(f"\n{report['computed']} computed, {report['stored']} from the store, {report['seconds']:.1f} s")


def _range(value: Any) -> str:
    """Return a figure as text, or the range of a stack's figures."""
    known = [item for item in value if item is not None] if isinstance(value, list) else [value]
    shown = [item if isinstance(item, str) else f"{item:.4g}" for item in (known[0], min(known), max(known))]
    return shown[0] if shown[1] == shown[2] else f"{shown[1]} to {shown[2]}"


def _repair(options: argparse.Namespace) -> int:
    """Write the repaired checkpoint."""
    from dgviz.export.write import ExportResult, iter_export

    repair = RepairPlan(options.rule, _rule_params(options), options.include, options.exclude, options.dtype)
    plan = plan_export(_pair(options), repair, options.out)
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
        _print_json(item.report)
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


def _demo(options: argparse.Namespace) -> int:
    """Write the demo out, copied or made anew."""
    from dgviz import demo

    if options.train:
        written = _train(options.directory)
    elif options.figure4:
        written = demo.write_figure4_pair(options.directory)
    else:
        written = demo.write_demo(options.directory)
    paths = {name: str(path) for name, path in written.items()}
    if options.json:
        _print_json(paths)
    else:
        for name, path in paths.items():
            print(f"{name:8}{path}")
    return 0


def _train(directory: str) -> dict[str, Path]:
    """Train the demo's checkpoints with a progress bar; return where they are."""
    from dgviz import demo

    with tqdm(unit="step", desc="train", file=sys.stderr) as bar:
        for event in demo.train_demo(directory):
            bar.total = event.total
            bar.set_postfix_str(event.message, refresh=False)
            bar.update(event.done - bar.n)
    return demo.demo_files(directory)
