"""How far a command is: a bar on standard error, and the files of the job that the command may be."""

import sys
from typing import Any, Self

from tqdm import tqdm

from dgviz.errors import DgvizError
from dgviz.jobs import JobReporter


class Cancelled(DgvizError):
    """The job that the command is was asked to stop."""

    exit_status = 1


class Progress:
    """A bar of work done, told to the job too; what `tell` is given makes it longer, until the job is cancelled.

    `kept` says whether the command, repeated, goes on from what is done.
    """

    def __init__(self, title: str, total: float, kept: bool = True, **bar: Any) -> None:
        self._bar = tqdm(total=total, desc=title, file=sys.stderr, **bar)
        self._reporter, self._kept = JobReporter.from_environment(), kept

    def __enter__(self) -> Self:
        """Return the open bar."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the bar."""
        self._bar.close()

    @property
    def done(self) -> float:
        """The work told so far."""
        return self._bar.n

    def tell(self, work: float, message: str, **extra: Any) -> None:
        """Count some work as done; raises `Cancelled` where the job is to stop."""
        self._bar.set_postfix_str(message[-40:], refresh=False)
        self._bar.update(work)
        self._reporter.progress(self._bar.n, self._bar.total, message, **extra)
        self.heed()

    def heed(self) -> None:
        """Raise `Cancelled` where the job is to stop."""
        if self._reporter.cancelled():
            self._reporter.finish({}, "cancelled")
            raise Cancelled("cancelled; repeat the command to go on from here" if self._kept else "cancelled")
