"""The errors a user can meet: each message is one sentence saying what, where, and what to do."""


class DgvizError(Exception):
    """Base of every error that is about the user's input or machine, not about a bug.

    Attributes
    ----------
    exit_status : int
        What the command line ends with: 2 for unusable input, 1 for a failure on the way.
    """

    exit_status = 2


class CommandError(DgvizError):
    """A command does not exist, or does not take the arguments given."""


class CheckpointError(DgvizError):
    """A file or directory cannot be used as a checkpoint."""


class PairError(DgvizError):
    """Two checkpoints do not belong together."""


class AccessError(DgvizError):
    """A path lies outside the folders that a server may open."""


class SpectrumError(DgvizError):
    """A delta cannot be decomposed."""


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


class ScoresError(DgvizError):
    """A file of scores cannot be read, or does not say which number is meant."""


class EvaluationError(DgvizError):
    """A model cannot be scored: the harness, a task or the checkpoint does not allow it."""


class ServerError(DgvizError):
    """The dashboard cannot be served as asked."""
