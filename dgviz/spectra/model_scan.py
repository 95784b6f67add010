"""The whole-model scan: every weight of a pair into the store, and its figures out, as fast as the machine allows.

Three things go on at once. One thread of this process reads ahead, in the order of work: it hashes both sides of each
matrix, which finds those already stored, and leaves the others in the page cache. Worker processes, one per core and
single-threaded (two of them beat one with two threads by 1.15 to 1.4), compute what is missing. And the caller's own
thread decides who begins next, and yields what has ended.
"""

import dataclasses
import math
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.module_path import module_path
from dgviz.errors import DgvizError
from dgviz.files import json_number
from dgviz.jobs.executor import Executor, NamedTask, Processes
from dgviz.rmt.assess import matrix_row, needs_delta
from dgviz.rmt.diagnosis import Diagnosis, WeighedDiagnosis, diagnose_model
from dgviz.rmt.directions import NO_DIRECTIONS, Directions
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import find_rule
from dgviz.spectra.kept_rows import KeptRows
from dgviz.spectra.schedule import Admission, Task, batch_size, count_cores, memory_budget, plan_tasks
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight, known_keys

Settings = tuple[str, Mapping[str, Any], Directions]
"""A rule, its parameters, and single directions that it does not decide."""

_LIST_PLACES, _SCAN = (NamedTask("dgviz.spectra.scan", name) for name in ("list_places", "scan_weights"))
_DEVICE_SHARE, _DEVICE_CONTEXT = 0.8, 2**30  # of a GPU's free bytes; and what each process keeps there for itself


@dataclass(frozen=True)
class ScannedMatrix:
    """One matrix of a pair, finished.

    Attributes
    ----------
    weight : Weight
        Which.
    work : float
        Its share in the sum of `dgviz.spectra.schedule.Task.work`.
    row : dict or None
        Its figures (`dgviz.rmt.assess.matrix_row`); ``row["stored"]`` says whether the spectrum came from the store.
    error : str or None
        Why it has none.
    kept : bool
        Whether its figures were found by a scan before.
    """

    weight: Weight
    work: float
    row: dict[str, Any] | None
    error: str | None
    kept: bool = False

    @property
    def name(self) -> str:
        """The tensor's name, with the matrix of a stack in brackets."""
        return self.weight.name


def iter_scan(
    pair: CheckpointPair,
    rule: str = "dg_hard",
    params: Mapping[str, Any] | None = None,
    device: str = "auto",
    workers: int | None = None,
    store: SpectrumStore | None = None,
    memory: int | None = None,
    heartbeat: float | None = None,
    own: Callable[[Weight], "Settings"] | None = None,
    executor: Executor | None = None,
) -> Iterator[ScannedMatrix | None]:
    """Put every weight's spectrum into the store, yielding one result per matrix as they finish.

    What is stored already is not computed again, so a scan that was stopped continues. A matrix that fails is a
    result with an error, and the others go on.

    Closing the generator ends the worker processes, in the middle of a computation if need be. `own` gives the
    settings of a single weight, where they are not the same for all. An executor that spreads its tasks takes the
    place of processes here, and of `device`, `workers` and `memory`; it is closed with the generator.
    """
    if workers is not None and workers < 1:
        raise DgvizError(f"a scan needs at least 1 worker; got {workers}")
    common = rule, find_rule(rule).checked(params or {}), NO_DIRECTIONS
    settings = own or (lambda weight: common)
    store = store or SpectrumStore()
    events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
    tasks = plan_tasks(pair)
    reader = _Reader(tasks, store, settings, events, reads=executor is None)
    crew = _Crew(store, settings, events, executor)
    waiting: list[Task] = []
    rows: dict[Task, dict[str, Any]] = {}
    reader.start()
    try:
        left = len(tasks)
        while left:
            try:
                event = events.get(timeout=heartbeat)
            except queue.Empty:
                yield None
                continue
            if event.row is None and event.error is None:
                waiting.append(event.task)
            else:
                left -= 1
                crew.ended(event.task)
            if waiting:
                crew.hire(device, workers, memory)
            for task in crew.begin(waiting, left):
                waiting.remove(task)
                reader.begun(task)
            if event.row is not None:
                rows[event.task] = event.row
            if event.row is not None or event.error is not None:
                yield ScannedMatrix(event.task.weight, event.task.work, event.row, event.error, event.kept)
        if rows and len(rows) == len(tasks) and not event.kept:
            with suppress(DgvizError):  # a file that is gone by now: nothing is kept
                keys = known_keys(task.weight for task in tasks)
                _kept_rows(tasks, keys, store, settings).keep([rows[task] for task in tasks])
    finally:
        reader.stop()
        crew.dismiss()


@dataclass(frozen=True)
class _Event:
    """Something happened to a task: it has its figures, or an error; neither means that it waits for a worker."""

    task: Task
    row: dict[str, Any] | None = None
    error: str | None = None
    kept: bool = False


def _kept_rows(
    tasks: list[Task], keys: list[str | None], store: SpectrumStore, settings: "Callable[[Weight], Settings]"
) -> KeptRows:
    """Return where the figures of all matrices are kept under these settings."""
    return KeptRows(store, keys, ((task.weight.name, settings(task.weight)) for task in tasks))


class _Reader(threading.Thread):
    """Reads ahead of the workers: looks matrices up in the store, and so brings the missing ones into the page cache.

    It stays ahead by a quarter of the memory that is free now at most: what is read much earlier than it is needed
    would have left the page cache before its turn.
    """

    def __init__(
        self,
        tasks: list[Task],
        store: SpectrumStore,
        settings: "Callable[[Weight], Settings]",
        events: "queue.SimpleQueue[_Event]",
        reads: bool,
    ) -> None:
        super().__init__(name="dgviz-scan-reader", daemon=True)
        self._tasks, self._store, self._settings, self._events = tasks, store, settings, events
        self._reads = reads  # else only what is remembered is looked up: who computes on a tensor reads it
        self._ahead = 0
        self._most = psutil.virtual_memory().available // 4
        self._changed = threading.Condition()
        self._stopped = False

    def run(self) -> None:
        """Go through the tasks, the largest first; whatever happens, something is told of every one."""
        told = 0
        try:
            for event in self._look_up_all():
                self._events.put(event)
                told += 1
        except Exception as error:
            for task in self._tasks[told:]:
                self._events.put(_Event(task, error=_sentence(error)))

    def _look_up_all(self) -> Iterator[_Event]:
        """Yield an event for each task, in their order."""
        try:
            keys = known_keys(task.weight for task in self._tasks)
        except DgvizError:  # a file is gone: each matrix says it for itself
            keys = [None] * len(self._tasks)
        kept = None
        with suppress(DgvizError):  # of settings that do not fit: each matrix says it for itself
            kept = _kept_rows(self._tasks, keys, self._store, self._settings).read()
        if kept is not None:
            yield from (_Event(task, row, kept=True) for task, row in zip(self._tasks, kept, strict=True))
            return
        stored, _ = self._store.get_many(key for key in keys if key is not None)
        for task, key in zip(self._tasks, keys, strict=True):
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or not self._reads or self._ahead < self._most)
                if self._stopped:
                    return
            event = self._look_up(task, key, stored.pop(key, None))
            if event.row is None and event.error is None:
                with self._changed:
                    self._ahead += task.stored
            yield event

    def begun(self, task: Task) -> None:
        """Count a task as no longer waiting."""
        with self._changed:
            self._ahead -= task.stored
            self._changed.notify()

    def stop(self) -> None:
        """End after the matrix that is being read."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _look_up(self, task: Task, key: str | None, found: Spectrum | None) -> _Event:
        """Return the figures of a matrix whose spectrum is stored, or the event that it is not."""
        try:
            if found is None and (self._reads or key):
                found = task.weight.find_spectrum(self._store, key)
            elif found is not None:
                found = dataclasses.replace(found, name=task.weight.name)
            settings = self._settings(task.weight)
            if found is None or needs_delta(found, *settings[:2]):
                return _Event(task)
            return _Event(task, matrix_row(found, *settings))
        except Exception as error:
            return _Event(task, error=_sentence(error))


class _Crew:
    """Where matrices are worked on: an executor for every device, which is given what it has room for."""

    def __init__(
        self,
        store: SpectrumStore,
        settings: "Callable[[Weight], Settings]",
        events: "queue.SimpleQueue[_Event]",
        executor: Executor | None,
    ) -> None:
        self._store, self._settings, self._events = store, settings, events
        self._executors: dict[str, Executor] = {}
        self._admission: dict[str, Admission] = {}
        self._place_of: dict[Task, str] = {}
        if executor is not None:  # which knows itself what there is room for; some wait there
            self._executors[executor.device] = executor
            self._admission[executor.device] = Admission(sys.maxsize, 2 * executor.count)

    def hire(self, device: str, workers: int | None, memory: int | None) -> None:
        """See what devices there are and make executors for them; processes start when they are first needed."""
        if self._executors:
            return
        first = Processes(workers or count_cores(), device)
        self._executors[device] = first
        places = first.submit(_LIST_PLACES).result()
        count = workers or (count_cores() if places[0][1] is None else len(places))
        self._executors = {}
        for number, (place, free) in enumerate(places):
            own = len(range(number, count, len(places)))
            if memory is not None:
                budget = memory
            elif free is None:
                budget = memory_budget(own)
            else:
                budget = int(_DEVICE_SHARE * free) - own * _DEVICE_CONTEXT
            self._executors[place] = first if number == 0 else Processes(max(1, own), place)
            self._admission[place] = Admission(max(0, budget), own)
        first.device = places[0][0]

    def begin(self, waiting: list[Task], left: int) -> list[Task]:
        """Begin tasks for as long as there is room; return those tasks. `left` have not ended."""
        begun = []
        rest = list(waiting)
        unread = left - len(self._place_of) - len(waiting)
        for place, admission in self._admission.items():
            while (task := admission.admit(rest, unread)) is not None:
                tasks = [task, *_siblings(task, rest, admission, batch_size(task.weight, place))]
                for each in tasks:
                    rest.remove(each)
                    self._place_of[each] = place
                begun += tasks
                self._begin(tasks, place, admission.threads_of(task))
        return begun

    def _begin(self, tasks: list[Task], place: str, threads: int) -> None:
        """Have a matrix, or some of one shape, worked on."""
        weights = [task.weight for task in tasks]
        settings = [self._settings(weight) for weight in weights]
        executor = self._executors[place]
        threads = 1 if executor.spread else threads
        arguments = {"weights": weights, "settings": settings, "threads": threads, "root": self._store.root}
        future = executor.submit(_SCAN, memory=sum(task.memory for task in tasks), **arguments)
        future.add_done_callback(lambda future: self._tell(tasks, future))

    def _tell(self, tasks: list[Task], future: Future) -> None:
        """Tell what came of tasks."""
        if future.cancelled():
            return
        # Whatever befalls one matrix is its result; the others go on.
        error = future.exception()
        results = future.result() if error is None else [error] * len(tasks)
        for task, result in zip(tasks, results, strict=True):
            failed = isinstance(result, Exception)
            self._events.put(_Event(task, error=_sentence(result)) if failed else _Event(task, result))

    def ended(self, task: Task) -> None:
        """Make room; a task that never began had none."""
        place = self._place_of.pop(task, None)
        if place is not None:
            self._admission[place].release(task)

    def dismiss(self) -> None:
        """End all processes."""
        for executor in self._executors.values():
            executor.close()


def _siblings(task: Task, waiting: list[Task], admission: Admission, most: int) -> list[Task]:
    """Return further matrices of a task's shape to work on with it: `most` in all, or as many as memory holds."""
    found: list[Task] = []
    for other in waiting:
        if len(found) + 1 >= most:
            break
        same = other.weight.shape == task.weight.shape and other.weight.is_double == task.weight.is_double
        if other is not task and same and admission.join(other):
            found.append(other)
    return found


def _sentence(error: Exception) -> str:
    """Return what to tell of an error: ours are sentences already, others are named."""
    return str(error) if isinstance(error, DgvizError) else f"{type(error).__name__}: {error}"


def scan_report(pair: CheckpointPair, results: list[ScannedMatrix], seconds: float) -> dict[str, Any]:
    """Return a finished scan as plain values, tensors in the pair's own order; a matrix that failed is None."""
    by_name: dict[str, list[ScannedMatrix]] = {}
    for result in results:
        by_name.setdefault(result.weight.tensor.name, []).append(result)
    weights, errors = {}, {}
    for paired in pair.repairable:
        own = sorted(by_name.get(paired.name, ()), key=lambda result: result.weight.index or 0)
        errors |= {result.name: result.error for result in own if result.error is not None}
        if all(result.row is None for result in own):
            continue
        rows = [result.row for result in own]
        weights[paired.name] = json_number({"shape": list(paired.tuned.shape), "matrices": rows})
    rows = [result.row for result in results if result.row is not None]
    stored = sum(row["stored"] for row in rows)
    return {
        "model": _model_verdict(pair, results),
        "weights": weights,
        "errors": errors,
        "stored": stored,
        "computed": len(rows) - stored,
        "seconds": round(seconds, 3),
    }


def _model_verdict(pair: CheckpointPair, results: list[ScannedMatrix]) -> dict[str, Any] | None:
    """Return the verdict on the matrices that have figures, in the order of their names."""
    known = sorted((result for result in results if result.row is not None), key=lambda result: result.name)
    weighed = [
        WeighedDiagnosis(
            result.name,
            math.prod(result.row["live_shape"]),
            result.row["energy"],
            Diagnosis.from_json(result.row["diagnosis"]),
            tower=module_path(result.name).tower,
            layer=module_path(result.name).layer,
        )
        for result in known
    ]
    return diagnose_model(weighed, pair.base.config).to_json() if weighed else None
