"""Where tasks are carried out: in this process, or in processes of their own; whoever submits them need not know.

Several machines are in `dgviz.jobs.ray_cluster`.

A task is a callable that can be pickled: a function of a module, or an instance of a class with ``__call__``. It is
given the device to compute on, then the arguments of the one call. What all calls share is part of the task, which
is sent to each process once.
"""

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from dgviz.jobs.perform import UNKNOWN
from dgviz.jobs.worker import Worker

Task = Callable[..., Any]


@dataclass(frozen=True)
class NamedTask:
    """A function that takes a ``device``, by its name: its module is imported only where it is carried out.

    Attributes
    ----------
    module, function : str
        Where it is and what it is called.
    """

    module: str
    function: str

    def __call__(self, device: str, **keywords: Any) -> Any:
        """Return what the function returns."""
        return getattr(importlib.import_module(self.module), self.function)(device=device, **keywords)


class Executor(Protocol):
    """Carries out tasks.

    Attributes
    ----------
    device : str
        Where tasks compute: what each of them is given first, or another device of its kind.
    count : int
        How many are carried out at once.
    threads : int or None
        On how many threads each of them computes; None where that is not decided here.
    spread : bool
        Whether other machines compute: then what is large is read and written by them, and not by this process.
    ahead : int
        How many tasks to submit before the first of them is asked for; 0 where each is carried out when submitted.
    """

    device: str
    count: int
    threads: int | None
    spread: bool
    ahead: int

    def submit(self, task: Task, *arguments: Any, memory: int = 0, **keywords: Any) -> Future:
        """Have a task carried out.

        Parameters
        ----------
        task : callable
            What is to be done.
        *arguments, **keywords
            What it is given behind the device.
        memory : int
            Bytes that it needs at most, for whoever chooses a machine for it.
        """

    def close(self) -> None:
        """End what runs, in the middle of a computation where that can be, and give up what waits."""


class Stream(Iterator[Any], Protocol):
    """Items that come from elsewhere."""

    def close(self) -> None:
        """End whoever makes them."""


class SpreadExecutor(Executor, Protocol):
    """Carries out tasks on several machines."""

    def stream(self, task: Task, *arguments: Any, memory: int = 0) -> "Stream":
        """Have a task carried out that is a generator, at once; return what it yields, as it comes.

        Parameters
        ----------
        task, *arguments, memory
            As for `submit`. Where a machine is lost another begins anew, so it must always yield as many items.
        """


class InProcess:
    """One's own process: a task is carried out when it is submitted.

    Parameters
    ----------
    device : str
        Where it computes.
    threads : int, optional
        On how many threads.
    """

    count, spread, ahead = 1, False, 0

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        self.device, self.threads = device, threads

    def submit(self, task: Task, *arguments: Any, memory: int = 0, **keywords: Any) -> Future:
        """Carry a task out."""
        future: Future = Future()
        try:
            future.set_result(task(self.device, *arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Return: nothing runs."""


class InThread:
    """A thread of one's own process: on a GPU one tensor is computed while another is written.

    One alone, so that the device is asked by nobody else. What it works on cannot be ended: closing waits for it.

    Parameters
    ----------
    device : str
        Where it computes.
    """

    count, threads, spread, ahead = 1, None, False, 2

    def __init__(self, device: str) -> None:
        self.device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dgviz-executor")

    def submit(self, task: Task, *arguments: Any, memory: int = 0, **keywords: Any) -> Future:
        """Have a task carried out when those before it have been."""
        return self._thread.submit(task, self.device, *arguments, **keywords)

    def close(self) -> None:
        """Wait for what is being worked on, and give up what waits."""
        self._thread.shutdown(cancel_futures=True)


class Processes:
    """Processes of this machine, of one thread each.

    Parameters
    ----------
    count : int
        How many; each starts when a task finds no other idle.
    device : str
        Where they compute.
    warm : str
        A module that they import when they start.
    joined : bool
        Whether this process is one of them. That saves a copy of large libraries; what it works on cannot be ended.
    """

    threads, spread = 1, False

    def __init__(self, count: int, device: str = "cpu", warm: str = "", joined: bool = False) -> None:
        self.count, self.device, self.ahead = count, device, 2 * count
        self._workers = [Worker("dgviz.jobs.perform", threads=1, warm=warm) for _ in range(count - joined)]
        self._idle: list[Worker | None] = [*self._workers, *([None] if joined else [])]
        self._callers = ThreadPoolExecutor(count, thread_name_prefix="dgviz-executor")
        self._tasks: list[Task] = []  # kept, so that each has a number of its own
        self._stopped = False

    def start(self) -> None:
        """Start all processes, without waiting until they have."""
        for worker in self._workers:
            worker.start()

    def submit(self, task: Task, *arguments: Any, memory: int = 0, **keywords: Any) -> Future:
        """Have a task carried out by a process that is idle, the one that was busy last before others."""
        number = next((number for number, known in enumerate(self._tasks) if known is task), len(self._tasks))
        if number == len(self._tasks):
            self._tasks.append(task)
        call = {"number": number, "arguments": (self.device, *arguments), "keywords": keywords}
        return self._callers.submit(self._carry_out, call)

    def _carry_out(self, call: dict[str, Any]) -> Any:
        """Carry a task out; runs in one of as many threads as there are processes."""
        worker, task = self._idle.pop(), self._tasks[call["number"]]
        try:
            if worker is None:
                return task(*call["arguments"], **call["keywords"])
            state, result = worker.call("perform", **call)
            if state == UNKNOWN:
                _, result = worker.call("perform", **call, task=task)
            return result
        finally:
            self._idle.append(worker)

    def close(self) -> None:
        """End the processes; a task of this process is waited for."""
        self._callers.shutdown(wait=False, cancel_futures=True)
        while True:
            # More than once: a thread that was about to call finds its worker gone and starts another.
            for worker in self._workers:
                worker.stop()
            if all(worker in self._idle for worker in self._workers):
                break
            time.sleep(0.01)
        self._callers.shutdown()


class Together:
    """Several executors as one: a task goes to the one that has the fewest for each of its processes.

    Parameters
    ----------
    executors : sequence of Executor
        At least one; their devices are of one kind.
    """

    threads, spread = 1, False

    def __init__(self, executors: Sequence[Executor]) -> None:
        self._executors = executors
        self.device, self.count = executors[0].device, sum(executor.count for executor in executors)
        self.ahead = 2 * self.count
        self._running = [0] * len(executors)

    def submit(self, task: Task, *arguments: Any, memory: int = 0, **keywords: Any) -> Future:
        """Have a task carried out by one of them."""
        place = min(range(len(self._executors)), key=lambda at: self._running[at] / self._executors[at].count)
        self._running[place] += 1
        future = self._executors[place].submit(task, *arguments, memory=memory, **keywords)
        future.add_done_callback(lambda _: self._ended(place))
        return future

    def _ended(self, place: int) -> None:
        self._running[place] -= 1

    def close(self) -> None:
        """Stop all of them."""
        for executor in self._executors:
            executor.close()
