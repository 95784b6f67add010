"""Exports as detached jobs: started, found again after a restart, shown."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgviz.app.pair import state_dir
from dgviz.app.roots import confine
from dgviz.jobs import Job, list_jobs, start_job


def jobs_root() -> Path:
    """Return the directory that holds a directory per job."""
    return state_dir() / "jobs"


def all_exports() -> list[Job]:
    """Return every export this machine remembers, newest first."""
    return list_jobs(jobs_root())


def running_exports() -> list[Job]:
    """Return the exports that run now."""
    return [job for job in all_exports() if job.state == "running"]


def free_folder(wanted: Path) -> Path:
    """Return the folder, or the first of its numbered names that is not there yet."""
    candidates = [wanted, *(wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))]
    return next((path for path in candidates if not path.exists()), wanted)


def suggested_name(tuned: Path, method: Mapping[str, Any], output: str) -> str:
    """Return what an output is called at first: tuned, what is done to it, and the format."""
    own = [] if method["method"] == "dg_hard" else [method["method"]]
    rule = [method["rule"]] if "rule" in method and (not own or method["rule"] != "dg_hard") else []
    words = [*own, *rule, *([] if output == "full" else [output])]
    return "-".join([tuned.name, *(word.replace("_", "-") for word in words)])


def shown_command(command: list[str]) -> str:
    """Return a command as one would type it."""
    return shlex.join(command)


def start_export(command: list[str], out: Path, title: str) -> Job:
    """Start an export that outlives the page and the server."""
    confine(out)
    root = Path(__file__).parents[2]
    return start_job([sys.executable, *command[1:]], jobs_root(), title, lock=out, cwd=root)
