"""The errors a user can meet: each message is one sentence saying what, where, and what to do."""

import re

# Controls of terminals, marks that turn the direction of writing, separators of lines, and lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_LONGEST = 2000


def printable(text: object) -> str:
    """Return a text as one line for terminals, logs and pages: what would act there is escaped, the middle of a long
    one left out.

    Names of files, tensors and models are somebody else's; they may hold anything.
    """  # noqa: D205
    text = str(text)
    if len(text) > _LONGEST:
        left = len(text) - _LONGEST
        text = f"{text[: _LONGEST // 2]} [... {left} characters ...] {text[-_LONGEST // 2 :]}"
    return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)


class DgvizError(Exception):
    """Base of every error that is about the user's input or machine, not about a bug.

    Its text is `printable`, whatever the names in it hold.

    Attributes
    ----------
    exit_status : int
        What the command line ends with: 2 for unusable input, 1 for a failure on the way.
    """

    exit_status = 2

    def __str__(self) -> str:
        """Return the message for people."""
        return printable(super().__str__())


class StateError(DgvizError):
    """A file that dgviz keeps of its own work cannot be read."""


class CommandError(DgvizError):
    """A command does not exist, or does not take the arguments given."""


class CheckpointError(DgvizError):
    """A file or directory cannot be used as a checkpoint."""


class PairError(DgvizError):
    """Two checkpoints do not belong together."""


class PackageError(DgvizError):
    """A package that only this work needs is not installed."""


class AccessError(DgvizError):
    """A path lies outside the folders that a server may open."""


class SpectrumError(DgvizError):
    """A delta cannot be decomposed."""


class LensError(DgvizError):
    """A direction cannot be read through the vocabulary."""


class ThresholdError(DgvizError):
    """A threshold rule or one of its parameters is unknown or out of range."""


class MethodError(DgvizError):
    """A repair method or one of its parameters is unknown or out of range, or it cannot work on what it is given."""


class PlanError(DgvizError):
    """A repair plan or one of its overrides cannot be read, or does not fit the pair."""


class ExportError(DgvizError):
    """An output cannot be written."""


class ExportFailedError(ExportError):
    """An export that could be started failed on the way."""

    exit_status = 1


class ClusterError(DgvizError):
    """A cluster cannot be used, or lost a task for good."""

    exit_status = 1


class ScoresError(DgvizError):
    """A file of scores cannot be read, or does not say which number is meant."""


class EvaluationError(DgvizError):
    """A model cannot be scored: the harness, a task or the checkpoint does not allow it."""


class ServerError(DgvizError):
    """The dashboard cannot be served as asked."""
