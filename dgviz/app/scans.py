"""The scan of a whole pair: the job that puts every spectrum into the store."""

import hashlib
from pathlib import Path

from dgviz.app.jobs import Task, find_job, known_jobs, root
from dgviz.app.pair import checkpoint_label, checkpoint_path, contents_of
from dgviz.app.state import View
from dgviz.checkpoint import CheckpointPair
from dgviz.command import Command
from dgviz.jobs import Job
from dgviz.repair.plan import RepairPlan
from dgviz.words import duration


def scan_task(view: View, pair: CheckpointPair, plan: RepairPlan | None = None) -> Task:
    """Return the scan of the pair in view, by a plan's rule where it finds more in the weights than their spectra.

    Else it names no rule: spectra are the same for all, and pages apply theirs to what is stored.
    """
    rule = plan.rule_arguments if plan is not None else {}
    base, tuned = checkpoint_path(view.base), checkpoint_path(view.tuned)
    return Task(
        Command("scan", base=base, tuned=tuned, **rule, device=view.device),
        f"{checkpoint_label(view.base)} → {checkpoint_label(view.tuned)}",
        _lock(pair),
        "Every weight's spectrum",
        "is computed in the background and kept, so that no page waits for it.",
        "Scan every weight",
        again="Scan again",
        result=_known,
    )


def find_scan(pair: CheckpointPair) -> Job | None:
    """Return the last scan of a pair, in the state its files are in now, or None."""
    return find_job("scan", _lock(pair))


def is_scanning(pair: CheckpointPair) -> bool:
    """Return whether a scan of a pair runs now. Where none runs at all, nothing of the pair is looked at for it."""
    if not any(job.state == "running" for job in known_jobs("scan")):
        return False
    job = find_scan(pair)
    return job is not None and job.state == "running"


def _lock(pair: CheckpointPair) -> Path:
    """Return what stands for a pair among the locks: nothing is ever written there."""
    identity = hashlib.sha256(f"{contents_of(pair.base)}{contents_of(pair.tuned)}".encode()).hexdigest()
    return root("scan").resolve() / ".pairs" / identity


def _known(job: Job) -> str:
    """Return what a finished scan has found."""
    result = job.result or {}
    found, computed, seconds = (result.get(name, 0) for name in ("stored", "computed", "seconds"))
    return f"{computed} computed in {duration(seconds)}, {found} had been before."
