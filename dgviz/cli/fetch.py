"""``fetch``: a model of the Hugging Face Hub into its cache, where every command finds it by its id."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

from dgviz.checkpoint.hub import HubPlan, find_cached, iter_fetch, plan_download, split_hub_id
from dgviz.cli.options import print_columns, print_json
from dgviz.cli.progress import Progress
from dgviz.errors import CheckpointError
from dgviz.jobs import JobReporter
from dgviz.words import size


def run(options: argparse.Namespace) -> int:
    """Show the plan, then fetch it."""
    reporter = JobReporter.from_environment()
    try:
        plan = plan_download(*_hub_id(options.model))
        if not options.json:
            _print_plan(plan)
        if not options.plan:
            _download(plan)
    except CheckpointError as error:
        reporter.finish({"error": str(error)}, "failed")
        raise
    directory = find_cached(plan.repo, plan.commit)
    if options.json:
        print_json(_to_json(plan, directory))
    elif not options.plan:
        print(f"\n{options.model} is in {directory}")
    reporter.finish({"directory": str(directory), "bytes": plan.nbytes})
    return 0


def _hub_id(text: str) -> tuple[str, str | None]:
    """Return repository and revision of a hub id."""
    hub = split_hub_id(text)
    if hub is None:
        there = Path(text).expanduser().exists()
        raise CheckpointError(
            f"{text!r} is a path that is there already: give it to the other commands as it is"
            if there
            else f"{text!r} is no hub id: give org/name, or org/name@revision"
        )
    return hub


def _download(plan: HubPlan) -> None:
    """Fetch the files of a plan, with a bar of bytes."""
    progress = Progress("fetch", plan.nbytes, unit="B", unit_scale=True, unit_divisor=1024)
    with progress, closing(iter_fetch(plan)) as fetched:
        for done in fetched:
            progress.tell(done - progress.done, plan.repo)


def _print_plan(plan: HubPlan) -> None:
    """Print what is fetched and what is there, file by file."""
    print(f"{plan.repo} at commit {plan.commit}")
    rows = [(state, f"{size:,}", name) for state, files in _states(plan) for name, size in files]
    print_columns(("", "bytes", "file"), rows)
    cached = f", {len(plan.cached)} are in the cache" if plan.cached else ""
    print(f"{len(plan.files)} files to fetch, {size(plan.nbytes)}{cached}")


def _states(plan: HubPlan) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
    return ("fetch", plan.files), ("cached", plan.cached)


def _to_json(plan: HubPlan, directory: Path | None) -> dict[str, Any]:
    """Return the plan and where the model is, as JSON values."""
    return {
        "repo": plan.repo,
        "commit": plan.commit,
        "bytes": plan.nbytes,
        "directory": None if directory is None else str(directory),
        "files": [
            {"name": name, "bytes": size, "state": state} for state, files in _states(plan) for name, size in files
        ],
    }
