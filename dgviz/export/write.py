"""Running a plan: one writer per output, errors in sentences, what is finished kept."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from dgviz.checkpoint import PairedTensor
from dgviz.errors import CheckpointError, ExportError, ExportFailedError
from dgviz.export.factors import iter_factors
from dgviz.export.finished import take_over
from dgviz.export.full import CHECKING, Repair, iter_full
from dgviz.export.lora.adapter import iter_adapter
from dgviz.export.made import MadeTensor, made_ahead
from dgviz.export.manifest import (
    LOCK,
    drop_manifest,
    finished_parts,
    read_manifest,
    refuse_other_options,
    remove_leftovers,
    write_manifest,
)
from dgviz.export.plan import ExportPlan
from dgviz.export.verify import Loading
from dgviz.jobs import WorkerDied
from dgviz.jobs.executor import Executor, InProcess
from dgviz.repair.report import TensorReport
from dgviz.repair.whole_model import prepare_method
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
    plan: ExportPlan, device: str | Executor = "auto", repair: Repair | None = None
) -> Iterator[TensorReport | ExportResult]:
    """Write the output, yielding a report after every tensor and an `ExportResult` last.

    Closing the generator, or an error, leaves what is finished and a manifest; the same plan continues from there. A
    run that is killed and repeated leaves the same bytes as one that was not. Where tensors are made an executor
    says, which whoever gives it also stops; a device means this process.
    """
    executor = InProcess(resolve_device(device)) if isinstance(device, str) else device
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
        with _disk_errors(plan), Loading(plan, executor.device) as loading:
            options = {**plan.options, "device": executor.device}
            if repair is None and plan.format == "full":
                facts = prepare_method(plan.pair, plan.repair, executor.device)
                options["facts"] = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
                make = made_ahead(plan.pair, [(plan.repair, facts)], executor)

                def repair(paired: PairedTensor) -> MadeTensor:
                    """Return a tensor under the one plan."""
                    return make(paired)[0]

            manifest, report = _start_manifest(plan, options), None
            output = _iter_finished(plan) if manifest["finished"] else _iter_output(plan, executor, repair, loading)
            for item in output:
                if isinstance(item, TensorReport):
                    yield item
                else:
                    report = item
            drop_manifest(plan.out)
            yield ExportResult(report, report.pop(CHECKING, 0.0))
    finally:
        with contextlib.suppress(OSError):
            (plan.out / LOCK).unlink(missing_ok=True)  # while still held: nobody else can be waiting on it
        lock.release()


def _iter_output(
    plan: ExportPlan, executor: Executor, repair: Repair | None, loading: Loading
) -> Iterator[TensorReport | dict[str, Any]]:
    """Return the writer of the plan's format, at work."""
    if plan.format == "full":
        return iter_full(plan, executor.device, repair, loading)
    return {"lora": iter_adapter, "factors": iter_factors}[plan.format](plan, executor)


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
    except WorkerDied as error:
        raise ExportFailedError(f"writing {plan.out} failed: {error}; {_CONTINUE}") from error
    except OSError as error:
        raise ExportFailedError(f"writing {plan.out} failed: {error.strerror or error}; {_CONTINUE}") from error
