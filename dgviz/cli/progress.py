"""How far a command is: a bar on standard error, and the files of the job that the command may be."""

import logging
import sys
from typing import Any

from tqdm import tqdm

from dgviz.errors import DgvizError, printable
from dgviz.jobs import JobReporter

LOG = logging.getLogger("dgviz")
"""What a command says on the way, by levels."""


def shows_bars() -> bool:
    """Return whether standard error is a terminal on which bars are wanted."""
    return sys.stderr.isatty() and LOG.isEnabledFor(logging.WARNING) and not LOG.isEnabledFor(logging.INFO)


class Cancelled(DgvizError):
    """The job that the command is was asked to stop."""

    exit_status = 1


class Progress(tqdm):
    """A bar of work done, told to the job too; what `tell` is given makes it longer, until the job is cancelled.

    `kept` says whether the command, repeated, goes on from what is done. In pipes and files there is no bar, nor
    where steps are lines of the log or nothing is to be said.
    """

    def __init__(self, title: str, total: float, kept: bool = True, **bar: Any) -> None:
        super().__init__(total=total, desc=title, file=sys.stderr, disable=not shows_bars(), **bar)
        self._title = title
        self._reporter, self._kept = JobReporter.from_environment(), kept

    def tell(self, work: float, message: str, **extra: Any) -> None:
        """Count some work as done; raises `Cancelled` where the job is to stop."""
        if self.disable:
            self.n += work
            LOG.info(f"{self._title}: {message}")
        else:
            self.set_postfix_str(printable(message)[-40:], refresh=False)
            self.update(work)
        self._reporter.progress(self.n, self.total, message, **extra)
        self.heed()

    def heed(self) -> None:
        """Raise `Cancelled` where the job is to stop."""
        if self._reporter.cancelled():
            self._reporter.finish({}, "cancelled")
            raise Cancelled("cancelled; repeat the command to go on from here" if self._kept else "cancelled")
