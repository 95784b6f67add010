"""From a pair of checkpoints to the spectra of its updates: deltas, decompositions, the store, the scan."""
