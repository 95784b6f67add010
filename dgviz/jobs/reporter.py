"""How far a job is: written by the job, read by whoever watches."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dgviz.errors import StateError, printable
from dgviz.files import read_record, write_json

JOB_VARIABLE = "DGVIZ_JOB_DIR"
_INTERVAL = 0.1  # seconds between two writes: a page polls once a second
ENDS = "done", "failed", "cancelled"
"""How a job may end by its own word."""
_HISTORY = 64  # samples kept of a run, the older ones further apart


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Parameters
    ----------
    done, total : float
        In the job's own unit, bytes for an export.
    message : str
        What it works on now.
    updated : float
        When this was written, in seconds since the epoch.
    history : tuple of (float, float)
        Samples (time in seconds since the epoch, done), oldest first.
    extra : mapping
        What the job added.
    """

    done: float
    total: float
    message: str
    updated: float
    history: tuple[tuple[float, float], ...]
    extra: Mapping[str, Any]

    @property
    def fraction(self) -> float:
        """Part done, between 0 and 1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0

    def seconds_left(self, now: float | None = None) -> float | None:
        """Return the seconds to go at the speed of the later half of the run so far, or None if unknown yet.

        The later half, because what is slow at first (imports, a big embedding) says little about the rest.

        Parameters
        ----------
        now : float, optional
            Seconds since the epoch; by default the present.
        """
        if self.done >= self.total:
            return 0.0
        if len(self.history) < 2:
            return None
        start, end = self.history[0][0], self.history[-1][0]
        since, before = max(sample for sample in self.history[:-1] if sample[0] <= max(start, (start + end) / 2))
        if end <= since or self.done <= before:
            return None
        speed = (self.done - before) / (end - since)
        waited = (time.time() if now is None else now) - self.updated
        return max(0.0, (self.total - self.done) / speed - max(0.0, waited))


class JobReporter:
    """The job's own end of its directory; a command run by hand has none and reports to nobody.

    Parameters
    ----------
    directory : Path or None
        The job's directory; with None every method does nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self._history: list[tuple[float, float]] = []
        self._written, self._message = 0.0, ""

    @classmethod
    def from_environment(cls) -> Self:
        """Return the reporter of the job that this process is, going by the environment that start_job gave it."""
        directory = os.environ.get(JOB_VARIABLE)
        return cls(Path(directory) if directory else None)

    def progress(self, done: float, total: float, message: str, **extra: Any) -> None:
        """Say how far the job is; cheap enough to be called for every chunk.

        Parameters
        ----------
        done, total : float
            In the same unit; `done` may start above 0 when an earlier run is resumed.
        message : str
            What is being worked on.
        **extra
            Anything JSON can hold.
        """
        now, message = time.time(), printable(message)
        recent = 0 <= now - self._written < _INTERVAL and message == self._message
        if self.directory is None or (recent and done < total):
            return
        self._history.append((now, done))
        if len(self._history) > _HISTORY:
            self._history = [*self._history[:-1:2], self._history[-1]]
        state = {"done": done, "total": total, "message": message, "updated": now, "history": self._history}
        write_json(self.directory / "progress.json", {**state, "extra": extra}, durable=False)
        self._written, self._message = now, message

    def cancelled(self) -> bool:
        """Return whether somebody asked the job to stop."""
        return self.directory is not None and (self.directory / "cancel").exists()

    def finish(self, result: Mapping[str, Any] | None = None, state: str = "done") -> None:
        """Record how the job ended; the last thing it does.

        Parameters
        ----------
        result : mapping, optional
            What the job has to say, as JSON; for a failed one, "error" holds its one sentence.
        state : str
            "done", "failed" or "cancelled".
        """
        if state not in ENDS:
            raise ValueError(f"a job ends as done, failed or cancelled, not as {state!r}")
        if self.directory is not None:
            ended = {"state": state, "ended": time.time(), "result": dict(result or {})}
            write_json(self.directory / "result.json", ended)


def read_progress(directory: Path) -> Progress | None:
    """Return the last progress written in a job's directory, or None where none was, or none that can be read."""
    try:
        found = read_record(directory / "progress.json")
        history = tuple((float(moment), float(done)) for moment, done in found["history"])
        numbers = {name: float(found[name]) for name in ("done", "total", "updated")}
        return Progress(message=str(found["message"]), history=history, extra=dict(found["extra"]), **numbers)
    except (StateError, KeyError, TypeError, ValueError):
        return None
