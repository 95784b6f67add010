"""``plan``: what inspecting, scanning and repairing a pair will take, from its headers alone."""

import argparse
import dataclasses

from dgviz.analysis.cost import PROCESSORS, CostPlan, plan_costs
from dgviz.cli.options import print_columns, print_result, seen_pair
from dgviz.errors import CommandError
from dgviz.words import count_bytes, duration, size


def run(options: argparse.Namespace) -> int:
    """Print a line for every stage."""
    for name in ("workers", "machines"):
        count = getattr(options, name)
        if count is not None and count < 1:
            raise CommandError(f"--{name} is {count}: give a whole number from 1 on")
    if options.on not in PROCESSORS:
        raise CommandError(f"--on is {options.on!r}: give one of {', '.join(PROCESSORS)}")
    line = count_bytes(options.line)
    if not line:
        raise CommandError("--line is 0 bytes a second: nothing would ever be read")
    plan = plan_costs(seen_pair(options), options.on, options.workers, options.machines, line)
    about = {"processor": dataclasses.asdict(plan.processor), "workers": plan.workers, "machines": plan.machines}
    stages = [dataclasses.asdict(stage) for stage in plan.stages]
    print_result(options, about | {"line": line, "stages": stages}, lambda: _print(plan))
    return 0


def _print(plan: CostPlan) -> None:
    """Print the plan for people."""
    print(
        f"{plan.machines} machine(s), {plan.workers} worker(s) each ({plan.processor.title}), reading and writing "
        f"{size(plan.line)} a second\n"
    )
    rows = [
        (stage.name, duration(stage.seconds), size(stage.memory), size(stage.read), size(stage.written))
        for stage in plan.stages
    ]
    print_columns(("stage", "time", "memory", "read", "written at most"), rows)
