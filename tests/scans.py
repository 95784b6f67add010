"""What a scan leaves in the store, made in this process: a process for each core costs an import of torch each."""

from dgviz.checkpoint import CheckpointPair
from dgviz.spectra.scan import scan_weights
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of


def scan_here(pair: CheckpointPair, store: SpectrumStore | None = None) -> None:
    """Put the spectrum of every weight into a store, DG-Hard's factors with it."""
    for weight in weights_of(pair):
        (row,) = scan_weights([weight], [("dg_hard", {})], "cpu", 1, (store or SpectrumStore()).root)
        if isinstance(row, Exception):
            raise row
