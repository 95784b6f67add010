"""``fetch``: a model of the Hugging Face Hub into its cache, where every command finds it by its id."""

import argparse
from contextlib import closing
from pathlib import Path

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
    where = None if directory is None else str(directory)
    files = [{"name": name, "bytes": size, "state": state} for state, name, size in _files(plan)]
    if options.json:
        about = {"repo": plan.repo, "commit": plan.commit, "bytes": plan.nbytes}
        print_json({**about, "directory": where, "files": files})
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
            progress.tell(done - progress.n, plan.repo)


def _print_plan(plan: HubPlan) -> None:
    """Print what is fetched and what is there, file by file."""
    print(f"{plan.repo} at commit {plan.commit}")
    print_columns(("", "bytes", "file"), [(state, f"{size:,}", name) for state, name, size in _files(plan)])
    cached = f", {len(plan.cached)} are in the cache" if plan.cached else ""
    print(f"{len(plan.files)} files to fetch, {size(plan.nbytes)}{cached}")


def _files(plan: HubPlan) -> list[tuple[str, str, int]]:
    """Return every file of a plan: whether it is to fetch, name and bytes."""
    states = (("fetch", plan.files), ("cached", plan.cached))
    return [(state, name, size) for state, files in states for name, size in files]
