"""Jobs of hours: a command with a directory, whose state is read from disk by whoever looks.

A job's directory holds spec.json (what was asked), supervisor.json and command.json (who runs it), progress.json,
log.txt (the command's stderr), output.txt (its stdout), cancel (exists when asked to stop), alive (touched while the
command runs, for whoever looks from another machine), result.json (what the command reported at its end) and
exit.json (its exit code).  Nothing is kept in memory, so jobs survive the server.  A file that was damaged, or is of
another version, is said in the job's `problem` and costs nothing else.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from dgviz.command import Command
from dgviz.errors import StateError, printable
from dgviz.files import read_record, write_json
from dgviz.jobs.process import HEARTBEAT, describe_process, is_alive, is_here, last_line, read_tail
from dgviz.jobs.reporter import ENDS, Progress, read_progress
from dgviz.jobs.wire import child_environment

_STARTING = 10.0  # seconds between a job's first file and the note of its process, on a very slow disk
_SILENT = 4 * HEARTBEAT  # seconds after which a job of another machine counts as dead
_TAIL = 64 * 1024  # bytes of a log looked at


class JobError(RuntimeError):
    """A job cannot be started or forgotten."""


class JobRunningError(JobError):
    """Another running job writes the same output."""


@dataclass(frozen=True)
class Job:
    """One job, as its directory tells.

    Parameters
    ----------
    directory : Path
        The job's directory; its name is the job's id.
    title : str
        What it is called on a page.
    command : tuple of str
        What runs.
    cwd : Path
        Where it runs.
    lock : Path or None
        What it writes and no other job may write meanwhile.
    created : float
        Seconds since the epoch.
    damage : str
        Why its spec cannot be read, in a sentence; then nothing else is known of it.
    """

    directory: Path
    title: str
    command: tuple[str, ...]
    cwd: Path
    lock: Path | None
    created: float
    damage: str = ""

    @property
    def id(self) -> str:
        """Name of the job's directory."""
        return self.directory.name

    @property
    def state(self) -> str:
        """One of "running", "done", "failed", "cancelled", "died" (ended without a word) and "damaged"."""
        if self.damage:
            return "damaged"
        # Alive is asked first: a job that ends between the two questions has left its last files by then.
        alive = self._alive()
        ended = self._read("result.json").get("state")
        if ended in ENDS:
            return ended
        code = self.exit_code
        if code is None and alive:
            return "running"
        if code == 0:
            return "done"
        if (self.directory / "cancel").exists():
            return "cancelled"
        return "failed" if code is not None and code > 0 else "died"

    @property
    def exit_code(self) -> int | None:
        """Exit code of the command, minus the signal's number for a signal; None while unknown."""
        code = self._read("exit.json").get("code")
        return code if type(code) is int else None

    @property
    def ended(self) -> float | None:
        """When it ended, in seconds since the epoch, or None while it runs or where nobody was left to see."""
        ended = self._read("result.json").get("ended", self._read("exit.json").get("ended"))
        return ended if isinstance(ended, int | float) else None

    @property
    def result(self) -> dict[str, Any] | None:
        """What the command reported at its end, or None."""
        result = self._read("result.json").get("result")
        return result if isinstance(result, dict) else None

    @property
    def error(self) -> str | None:
        """Why it failed or died, in a sentence; None for any other state."""
        state, code = self.state, self.exit_code
        if state == "damaged":
            return self.damage
        if state == "failed":
            reported = (self.result or {}).get("error")
            reported = (
                reported or last_line(self.log_tail(50)) or f"the command ended with exit code {code} and no word"
            )
            return printable(reported)
        if state == "died":
            how = "ended and left no exit code (a restart of the machine, or killed)"
            if code is not None:
                how = f"was ended by {_signal_name(-code)} (killed from outside, or out of memory)"
            last = last_line(self.log_tail(50))
            return printable("; ".join(filter(None, (f"the process {how}", last and f"its last words: {last}"))))
        return None

    @property
    def problem(self) -> str:
        """Which of its files cannot be read and why, in a sentence; empty where all can."""
        if self.damage:
            return self.damage
        for name in ("result.json", "exit.json", "supervisor.json", "command.json", "progress.json"):
            try:
                read_record(self.directory / name)
            except StateError as error:
                return str(error)
        return ""

    def _read(self, name: str) -> dict[str, Any]:
        """Return what one of its files holds; nothing where there is none, or `problem` says why it is not read."""
        try:
            return read_record(self.directory / name) or {}
        except StateError:
            return {}

    def progress(self) -> Progress | None:
        """Return how far it is, or None before its first word."""
        return read_progress(self.directory)

    def log_tail(self, lines: int = 20) -> str:
        """Return the end of what the command wrote to stderr, a progress bar as its latest state.

        Parameters
        ----------
        lines : int
            How many, at most.
        """
        try:
            with (self.directory / "log.txt").open("rb") as log:
                text = read_tail(log, _TAIL)
        except FileNotFoundError:
            return ""
        shown = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.rstrip().split("\n")]
        return "\n".join(shown[-lines:])

    def cancel(self, force: bool = False) -> None:
        """Ask the job to stop; with `force`, end it and all it started at once.

        Parameters
        ----------
        force : bool
            For a job that does not listen.
        """
        if self.state != "running":
            return
        (self.directory / "cancel").touch()
        supervisor = self._process("supervisor.json")
        if force and supervisor is not None and is_here(supervisor) and is_alive(**supervisor):
            # The supervisor leads a session of its own, so its group is the job and nothing else.
            os.killpg(supervisor["pid"], signal.SIGKILL)

    def forget(self) -> None:
        """Delete the job's directory, not what the job wrote.

        Raises
        ------
        JobError
            While it runs.
        """
        if self.state == "running":
            raise JobError(f"the job {self.title!r} is still running; cancel it before it is forgotten")
        # Out of sight first: the supervisor of a job that has just reported its end may still write into it.
        gone = self.directory.with_name(f".{self.id}")
        self.directory.rename(gone)
        shutil.rmtree(gone)

    def _alive(self) -> bool:
        supervisor = self._process("supervisor.json")
        if supervisor is None:
            return abs(time.time() - self.created) < _STARTING
        if not is_here(supervisor):
            return self._was_heard()
        # The command too: it goes on when somebody kills the supervisor alone.
        command = self._process("command.json")
        return any(process is not None and is_alive(**process) for process in (supervisor, command))

    def _process(self, name: str) -> dict[str, Any] | None:
        """Return what identifies a process of the job, or None where that is not known."""
        found = self._read(name)
        sound = type(found.get("pid")) is int and isinstance(found.get("started"), int | float)
        return {key: found.get(key) for key in ("pid", "started", "host", "boot")} if sound else None

    def _was_heard(self) -> bool:
        """Return whether the job has given a sign of life lately, by the clock of the disk that it lies on."""
        try:
            heard = (self.directory / "alive").stat().st_mtime
            with tempfile.NamedTemporaryFile(dir=self.directory, prefix=".clock-") as clock:
                return abs(os.fstat(clock.fileno()).st_mtime - heard) < _SILENT
        except OSError:
            return False


def start_job(
    command: Command | Sequence[str], root: Path, title: str, lock: Path | None = None, cwd: Path | None = None
) -> Job:
    """Start `command` so that it outlives this process, and return at once.

    The command finds its directory through `JobReporter.from_environment`.

    Parameters
    ----------
    command : Command or sequence of str
        A dgviz command, or any program and its arguments; no shell.
    root : Path
        Where all jobs have their directories; created where missing.
    title : str
        What the job is called on a page.
    lock : Path, optional
        What the job writes: no other job of `root` may write it, in it, or around it while this one runs.
    cwd : Path, optional
        Where it runs; by default here.

    Raises
    ------
    JobRunningError
        When a running job writes the same output.
    """
    words = command.start if isinstance(command, Command) else list(command)
    lock = None if lock is None else Path(os.path.realpath(lock))
    cwd = Path.cwd() if cwd is None else cwd
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):  # between looking for others and being seen by them
        _refuse_shared(root, lock)
        created = time.time()
        directory = root / f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(created))}-{secrets.token_hex(3)}"
        directory.mkdir()
        (directory / "alive").touch()
        spec = {"title": title, "command": words, "cwd": cwd, "lock": lock, "created": created}
        job = _load(directory.resolve(), spec)
        write_json(directory / "spec.json", spec)
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "dgviz.jobs.supervise", str(job.directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
        )
        write_json(directory / "supervisor.json", describe_process(supervisor.pid))
    # Collects the exit status, so that an ended supervisor does not stay in the process table as a zombie.
    threading.Thread(target=supervisor.wait, daemon=True).start()
    return job


def list_jobs(root: Path) -> list[Job]:
    """Return every job of `root`, the newest first.

    Parameters
    ----------
    root : Path
        Where jobs have their directories; nothing there yet means no jobs.
    """
    if not root.is_dir():
        return []
    found = [path.resolve() for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    # A directory without a spec is a job being started or forgotten this very moment.
    jobs = [job for job in map(_read_job, found) if job is not None]
    return sorted(jobs, key=lambda job: (job.created, job.id), reverse=True)


def _read_job(directory: Path) -> Job | None:
    """Return the job of a directory, one whose spec was damaged too; None where there is no spec."""
    file = directory / "spec.json"
    try:
        spec = read_record(file, "title", "command", "cwd", "lock", "created")
        return None if spec is None else _load(directory, spec)
    except StateError as error:
        damage = str(error)
    except (TypeError, ValueError) as error:
        damage = f"{file} does not describe a job ({error}): it was damaged, or is of another version"
    try:
        created = file.stat().st_mtime
    except OSError:
        return None
    return Job(directory, directory.name, (), directory, None, created, damage)


def _load(directory: Path, spec: dict[str, Any]) -> Job:
    title, command, created = spec["title"], spec["command"], spec["created"]
    if not isinstance(title, str) or not isinstance(created, int | float) or isinstance(created, bool):
        raise TypeError(f"title {title!r}, created {created!r}")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise TypeError(f"command {command!r}")
    lock = None if spec["lock"] is None else Path(spec["lock"])
    return Job(directory, title, tuple(command), Path(spec["cwd"]), lock, created)


def _signal_name(number: int) -> str:
    """Return what a signal is called; of a number that no signal has, the number."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _refuse_shared(root: Path, lock: Path | None) -> None:
    if lock is None:
        return
    for job in list_jobs(root):
        shared = job.lock is not None and (job.lock.is_relative_to(lock) or lock.is_relative_to(job.lock))
        if shared and job.state == "running":
            raise JobRunningError(
                f"the job {job.title!r} is writing {job.lock}, so {lock} cannot be written now; "
                "wait for it, cancel it, or choose another output"
            )
