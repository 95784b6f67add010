"""All stored spectra of the pair in view and what a rule makes of them, read once and kept while the server runs."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dgviz.atlas import Assessment, Atlas, assess, read_atlas
from dgviz.checkpoint import CheckpointPair

_RULES_KEPT = 8  # settings of a rule whose figures are kept beside each other: going back to one costs nothing


class _Known:
    """What has been read of one pair; it grows while a scan runs."""

    def __init__(self) -> None:
        self.atlas: Atlas | None = None
        self.assessed: dict[tuple, dict[str, Assessment]] = {}


@st.cache_resource(max_entries=4, show_spinner=False)
def _known(fingerprints: tuple[str, str, int]) -> _Known:
    """Return the place where a pair's spectra are kept."""
    return _Known()


def _place(pair: CheckpointPair) -> _Known:
    """Return what is kept of a pair."""
    return _known((pair.base.fingerprint, pair.tuned.fingerprint, len(pair.repairable)))


def load_atlas(pair: CheckpointPair) -> Atlas:
    """Return the stored spectra of a pair; only those that were missing at the last look are looked for again.

    Parameters
    ----------
    pair : CheckpointPair
        The open pair.
    """
    known = _place(pair)
    if known.atlas is None or known.atlas.missing:
        known.atlas = read_atlas(pair, previous=known.atlas)
    return known.atlas


def load_assessments(pair: CheckpointPair, atlas: Atlas, rule: str, params: Mapping[str, Any]) -> list[Assessment]:
    """Return what a rule makes of every stored matrix, in the order of the checkpoint.

    Parameters
    ----------
    pair : CheckpointPair
        The open pair.
    atlas : Atlas
        From `load_atlas`.
    rule : str
        Threshold rule.
    params : mapping
        Its parameters.
    """
    kept = _place(pair).assessed
    own = kept.setdefault((rule, tuple(sorted(params.items()))), {})
    for matrix in atlas.matrices:
        if matrix.label not in own:
            own[matrix.label] = assess(matrix, rule, params)
    for settings in list(kept)[:-_RULES_KEPT]:
        kept.pop(settings, None)
    return [own[matrix.label] for matrix in atlas.matrices]
