"""The errors a user can meet: each message is one sentence saying what, where, and what to do."""


class DgvizError(Exception):
    """Base of every error that is about the user's input, not about a bug."""


class CheckpointError(DgvizError):
    """A file or directory cannot be used as a checkpoint."""


class PairError(DgvizError):
    """Two checkpoints do not belong together."""


class SpectrumError(DgvizError):
    """A delta cannot be decomposed."""


class ThresholdError(DgvizError):
    """A threshold rule or one of its parameters is unknown or out of range."""


class ExportError(DgvizError):
    """An output cannot be written."""
