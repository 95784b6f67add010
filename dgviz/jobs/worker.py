"""One warm process beside the page's: heavy libraries and computations live there, one call at a time.

A thread would freeze the page (SciPy holds the GIL during a whole SVD) and `multiprocessing` would run the
Streamlit script again in its child, because Streamlit replaces `sys.modules["__main__"]`; so the process is
started as a program of its own and talks over a private socket.
"""

import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from dgviz.jobs.process import last_line, read_tail
from dgviz.jobs.wire import child_environment, receive_frame, send_frame

# Every BLAS and OpenMP that NumPy, SciPy or torch may carry.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerDied(RuntimeError):
    """The worker's process ended while it worked on a call; the next call starts a new one."""


class Superseded(RuntimeError):
    """A newer call of the same group arrived while this one was still waiting for its turn."""


class RemoteError(RuntimeError):
    """A call failed with an exception whose class this process cannot rebuild, or must not import."""


class _Ticket:
    """One caller's place in the queue."""

    def __init__(self, group: str | None) -> None:
        self.group = group
        self.superseded = False


class Worker:
    """One warm process that calls the functions of one module, by name.

    Parameters
    ----------
    module : str
        Importable module whose functions may be called.
    threads : int, optional
        BLAS and OpenMP threads of the process; by default what the environment says.
    nice : int
        Added to the process's nice value; 19 is the most yielding.
    log : Path, optional
        File that receives what the process prints; by default an anonymous temporary file.  Either way the last
        line is quoted when the process dies.
    warm : str
        A further module that the process imports when it starts.

    Examples
    --------
    >>> with Worker("math") as worker:
    ...     worker.call("dist", p=(0, 0), q=(3, 4))
    5.0
    """

    def __init__(
        self, module: str, threads: int | None = None, nice: int = 0, log: Path | None = None, warm: str = ""
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; a worker needs at least 1")
        self.module, self.warm = module, warm or module
        self.threads = threads
        self.nice = nice
        self._log_path = log
        self._log: IO[bytes] | None = None
        self._process: subprocess.Popen | None = None
        self._channel: socket.socket | None = None
        self._spawning = threading.Lock()
        self._turn = threading.Condition()
        self._queue: deque[_Ticket] = deque()  # the first one is being served

    @property
    def pid(self) -> int | None:
        """Process id of the live worker, or None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def busy(self) -> bool:
        """Whether a call is running or waiting."""
        return bool(self._queue)

    def start(self) -> None:
        """Start the process, if none is alive, without waiting until it has imported its module."""
        self._live()

    def stop(self) -> None:
        """End the process, in the middle of a call if need be; a later call starts a new one."""
        with self._spawning:
            self._close()

    def call(self, function: str, /, timeout: float | None = None, group: str | None = None, **kwargs: Any) -> Any:
        """Return what `function` of the worker's module returns; thread-safe, first come first served.

        Parameters
        ----------
        function : str
            Name in the module.
        timeout : float, optional
            Seconds for waiting and computing together.  A computation cannot be interrupted, so a time-out in
            the middle of one ends the process (what it kept is lost); while waiting it ends nothing.
        group : str, optional
            Calls of one group replace each other: when a newer one arrives, those still waiting are dropped.
        **kwargs
            Arguments of the function, picklable.

        Raises
        ------
        Superseded
            A newer call of the group arrived while this one was waiting.
        TimeoutError
            The time-out passed.
        WorkerDied
            The process ended during the call.
        RemoteError
            The function raised something that cannot be rebuilt here.
        Exception
            What the function raised, with the worker's traceback as a note; the worker lives on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        request = pickle.dumps((function, kwargs), protocol=pickle.HIGHEST_PROTOCOL)
        ticket = self._enqueue(group)
        try:
            self._await_turn(ticket, function, timeout, deadline)
            reply = self._exchange(function, request, timeout, deadline)
        finally:
            with self._turn:
                self._queue.remove(ticket)
                self._turn.notify_all()
        kind, value = pickle.loads(reply)
        if kind == "failure":
            raise _rebuild(*value)
        return value

    def __enter__(self) -> Self:
        """Start the process."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the process."""
        self.stop()

    def _enqueue(self, group: str | None) -> _Ticket:
        ticket = _Ticket(group)
        with self._turn:
            if group is not None:
                for waiting in self._queue:  # one that runs already does not look any more
                    waiting.superseded |= waiting.group == group
            self._queue.append(ticket)
            self._turn.notify_all()
        return ticket

    def _await_turn(self, ticket: _Ticket, function: str, timeout: float | None, deadline: float | None) -> None:
        with self._turn:
            left = None if deadline is None else deadline - time.monotonic()
            if not self._turn.wait_for(lambda: self._queue[0] is ticket or ticket.superseded, left):
                raise TimeoutError(f"the worker was still busy with another call {timeout:g} s after {function}")
            if ticket.superseded:
                raise Superseded(f"a newer call of group {ticket.group!r} arrived before {function} had its turn")

    def _exchange(self, function: str, request: bytes, timeout: float | None, deadline: float | None) -> bytearray:
        process, channel = self._live()
        try:
            send_frame(channel, request, deadline)
            return receive_frame(channel, deadline)
        except TimeoutError as error:
            self.stop()
            raise TimeoutError(f"{function} did not finish in {timeout:g} s; its process was ended") from error
        except (EOFError, OSError) as error:
            raise WorkerDied(self._obituary(process, function)) from error
        except BaseException:  # interrupted half way: the next answer would be taken for the next call's
            self.stop()
            raise

    def _obituary(self, process: subprocess.Popen, function: str) -> str:
        try:
            code = process.wait(timeout=5)  # its socket is closed: it has ended or is about to
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += " (stopped from outside, or the machine ran out of memory)"
        said = self._last_line()
        said = f"; the last thing it printed: {said}" if said else ""
        return f"the worker {how} during {function}; the next call starts a new one{said}"

    def _last_line(self) -> str:
        with self._spawning:  # nobody closes the log meanwhile
            if self._log is None:
                return ""
            return last_line(read_tail(self._log, 4096))

    def _live(self) -> tuple[subprocess.Popen, socket.socket]:
        """Return the live process and its socket, starting them where need be."""
        with self._spawning:
            if self.pid is None:
                self._close()
                self._spawn()
            return self._process, self._channel

    def _spawn(self) -> None:
        if self._log_path is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        else:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            self._log = self._log_path.open("a+b")
        threads = {} if self.threads is None else dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        self._channel, theirs = socket.socketpair()
        with theirs:
            arguments = [str(theirs.fileno()), self.module, str(self.nice), self.warm]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dgviz.jobs.serve", *arguments],
                pass_fds=[theirs.fileno()],  # the parent's end is not inherited: its closing is the child's end
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=child_environment(threads),
            )

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()  # which also wakes a thread that waits for an answer
            self._process.wait()
        if self._channel is not None:
            self._channel.close()
        if self._log is not None:
            self._log.close()
        self._channel = self._process = self._log = None


def _rebuild(module: str, name: str, message: str, pickled: bytes | None, trace: str) -> Exception:
    """Return the exception that the worker raised, or a RemoteError in its place.

    Whoever wants to catch a class has imported its module, so no module is imported here: rebuilding a torch
    exception would bring torch into the page's process.
    """
    error = None
    if pickled is not None and (module in sys.modules or module.partition(".")[0] in sys.stdlib_module_names):
        with suppress(Exception):
            error = pickle.loads(pickled)
    if not isinstance(error, Exception):  # SystemExit in the worker must not end a thread here
        error = RemoteError(f"{name}: {message}" if message else name)
    error.add_note("Raised in the worker:\n" + trace.rstrip())
    return error
