"""The chosen methods on the whole model at once, from stored spectra: a slider moves these figures too."""

import streamlit as st

from dgviz.analysis.model_spectra import ModelSpectra
from dgviz.analysis.preview import ModelPreview, preview_matrices, preview_model
from dgviz.analysis.rules import ShrunkAssessment
from dgviz.app.kept import kept
from dgviz.app.messages import show_warning
from dgviz.app.spectra import load_spectra
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import DgvizError
from dgviz.repair.plan import RepairPlan


def draw_preview(pair: CheckpointPair, plans: dict[str, RepairPlan]) -> None:
    """Show what every chosen method that keeps the singular vectors makes of the model."""
    spectra = load_spectra(pair)
    known, total = len(spectra.weights), len(spectra.weights) + len(spectra.missing)
    st.markdown("**The same settings on the whole model, from stored spectra**")
    if spectra.missing:
        st.caption(
            f"Spectra of {known} of {total} matrices are stored, and the figures are of these only; a scan adds "
            "the others."
        )
    if not known:
        return
    rows = []
    for plan in (plan for plan in plans.values() if plan.recipe.spectral):
        try:
            found = load_preview(pair, spectra, plan)
        except DgvizError as error:
            show_warning(str(error))
            continue
        rows.append(
            {
                "method": plan.recipe.title,
                "settings": plan.label.partition(":")[2].replace(":", ", "),
                "norm kept %": 100 * found.norm_kept,
                "distance to DG-Hard %": 100 * found.distance,
                "directions kept": found.directions,
                "effective rank": found.effective_rank,
            }
        )
    if rows:
        st.dataframe(rows, hide_index=True, width="stretch", column_config=_COLUMN_CONFIG)
    others = [plan.recipe.title for plan in plans.values() if not plan.recipe.spectral]
    if others:
        st.caption(f"Not known from spectra: {', '.join(others)}. Measure every method below.".replace("*", r"\*"))


def load_preview(pair: CheckpointPair, spectra: ModelSpectra, plan: RepairPlan) -> ModelPreview:
    """Return what a method, overrides included, makes of the matrices whose spectra are stored."""
    return _preview(*_known(pair, spectra), plan, spectra)


def load_matrices(pair: CheckpointPair, spectra: ModelSpectra, plan: RepairPlan) -> list[ShrunkAssessment]:
    """Return what a method makes of each matrix whose spectrum is stored."""
    return _matrices(*_known(pair, spectra), plan, spectra)


def _known(pair: CheckpointPair, spectra: ModelSpectra) -> tuple[tuple[str, str, int], tuple[str, ...]]:
    """Return what tells a pair, and how many of its spectra are stored, from others; and its tensors' names."""
    names = tuple(item.name for item in pair.tensors if item.tuned is not None)
    return (pair.base.fingerprint, pair.tuned.fingerprint, len(spectra.weights)), names


@kept
def _preview(stamp: tuple, names: tuple[str, ...], plan: RepairPlan, _spectra: ModelSpectra) -> ModelPreview:
    return preview_model(_spectra.weights, plan, names)


@kept
def _matrices(
    stamp: tuple, names: tuple[str, ...], plan: RepairPlan, _spectra: ModelSpectra
) -> list[ShrunkAssessment]:
    return preview_matrices(_spectra.weights, plan, names)


_COLUMN_CONFIG = {
    "norm kept %": st.column_config.NumberColumn(
        format="%.1f",
        help="Length of the method's update over that of the fine-tuned one, all matrices together.",
    ),
    "distance to DG-Hard %": st.column_config.NumberColumn(
        format="%.1f", help="Distance to DG-Hard as published, over the length of the fine-tuned update."
    ),
    "directions kept": st.column_config.NumberColumn(help="Singular directions that are left something, summed."),
    "effective rank": st.column_config.NumberColumn(format="%.1f", help="Median over the matrices."),
}
