"""Running a plan: one writer per output, errors in sentences, what is finished kept."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from filelock import FileLock, Timeout

from dgviz.errors import CheckpointError, ClusterError, ExportError, ExportFailedError
from dgviz.export.factors import iter_factors
from dgviz.export.finished import take_over
from dgviz.export.full import CHECKING, Write, iter_full, write_shard
from dgviz.export.loading import Loading
from dgviz.export.lora.adapter import iter_adapter
from dgviz.export.made import SharedTensors, made_ahead
from dgviz.export.manifest import (
    LOCK,
    MANIFEST,
    drop_manifest,
    finished_parts,
    read_manifest,
    refuse_other_options,
    remove_leftovers,
    write_manifest,
)
from dgviz.export.plan import ExportPlan
from dgviz.export.spread import ShardsAhead
from dgviz.jobs import WorkerDied
from dgviz.jobs.executor import Executor, InProcess
from dgviz.repair.report import TensorReport
from dgviz.repair.whole_model import Squares, prepare_on
from dgviz.spectra.svd.decompose import resolve_device

_CONTINUE = "what is finished is kept, repeat the same command to continue"


@dataclass(frozen=True)
class ExportResult:
    """What was written, as in the output's ``dgviz.json``, and the seconds that comparing logits took."""

    report: Mapping[str, Any]
    checking: float = 0.0

    @property
    def tensors(self) -> Mapping[str, Any]:
        """One row per tensor of either input, by name."""
        return self.report["tensors"]


def iter_export(
    plan: ExportPlan, device: str | Executor = "auto", loading: Loading | None = None
) -> Iterator[TensorReport | ExportResult]:
    """Write the output, yielding a report after every tensor and an `ExportResult` last.

    Closing the generator, or an error, leaves what is finished and a manifest; the same plan continues from there. A
    run that is killed and repeated leaves the same bytes as one that was not. Where tensors are made an executor
    says, which whoever gives it also stops; a device means this process. `loading` may be given where it has begun to
    get ready.
    """
    with contextlib.closing(begin_export(plan, device, loading=loading)) as export:
        next(export)
        yield from export


def begin_export(
    plan: ExportPlan,
    device: str | Executor = "auto",
    write: Write | None = None,
    loading: Loading | None = None,
) -> Iterator[TensorReport | ExportResult | None]:
    """Yield None when the output's folder is held and has its manifest, then what `iter_export` does.

    `write` writes the files where several outputs share what is made for them.
    """
    executor = InProcess(resolve_device(device)) if isinstance(device, str) else device
    loading = loading or Loading(plan, executor)
    with _disk_errors(plan):
        plan.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(plan.out / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ExportError(
                f"another process is writing {plan.out}; wait for it or choose another folder"
            ) from None
    try:
        with _disk_errors(plan), loading:
            options = {**plan.options, "device": executor.device}
            if write is None and plan.format == "full":
                facts = prepare_on(executor, plan.pair, plan.repair)
                options["facts"] = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
                (write,) = writers_of([plan], [facts], executor)
            manifest, report = _start_manifest(plan, options), None
            yield None
            output = _iter_finished(plan) if manifest["finished"] else _iter_output(plan, executor, write, loading)
            for item in output:
                if isinstance(item, TensorReport):
                    yield item
                else:
                    report = item
            remove_leftovers(plan.out)  # of machines that were lost
            drop_manifest(plan.out)
            yield ExportResult(report, report.pop(CHECKING, 0.0))
    finally:
        with contextlib.suppress(OSError):
            (plan.out / LOCK).unlink(missing_ok=True)  # while still held: nobody else can be waiting on it
        lock.release()


def _iter_output(
    plan: ExportPlan, executor: Executor, write: Write | None, loading: Loading
) -> Iterator[TensorReport | dict[str, Any]]:
    """Return the writer of the plan's format, at work."""
    if plan.format == "full":
        return iter_full(plan, executor.device, write, loading)
    return {"lora": iter_adapter, "factors": iter_factors}[plan.format](plan, executor)


def writers_of(
    plans: Sequence[ExportPlan], facts: Sequence[Any], executor: Executor, squares: Squares | None = None
) -> list[Write]:
    """Return what writes the files of several outputs, in step: here, or where an executor spreads its tasks."""
    if executor.spread:
        ahead = ShardsAhead(plans, facts, executor, squares)
        return [ahead.writer(number) for number in range(len(plans))]
    settings = list(zip((plan.repair for plan in plans), facts, strict=True))
    shared = SharedTensors(made_ahead(plans[0].pair, settings, executor), {} if squares is None else squares)
    return [partial(write_shard, plan, shared.repairer(number)) for number, plan in enumerate(plans)]


def _iter_finished(plan: ExportPlan) -> Iterator[TensorReport | dict[str, Any]]:
    """Yield what a run that was ended after its last file would have yielded."""
    report = take_over(plan)
    for name, row in report["tensors"].items():
        yield TensorReport.from_json(name, row)
    yield report


def _start_manifest(plan: ExportPlan, options: dict[str, Any]) -> Mapping[str, Any]:
    """Return the manifest, that of the run to continue or a new one, which is there before anything else is.

    Called with the lock held: the folder may have been filled since the plan was made.
    """
    finished = finished_parts(plan.out, options)
    remove_leftovers(plan.out)
    manifest = read_manifest(plan.out)
    if manifest is None or not finished:
        manifest = write_manifest(plan.out, options)
    refuse_other_options(plan.out, manifest["options"], options)
    return manifest


@contextlib.contextmanager
def _disk_errors(plan: ExportPlan) -> Iterator[None]:
    """Turn the operating system's complaints into a sentence about this output."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{error}; {_CONTINUE} into {plan.out}") from error
    except (WorkerDied, ClusterError) as error:
        raise ExportFailedError(f"writing {plan.out} failed: {error}; {_CONTINUE}") from error
    except OSError as error:
        then = _CONTINUE if (plan.out / MANIFEST).is_file() else "nothing was written, choose another folder"
        raise ExportFailedError(f"writing {plan.out} failed: {error.strerror or error}; {then}") from error
