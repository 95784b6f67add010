"""Results drawn as Plotly figures: values in, `plotly.graph_objects.Figure` out; no computation, no Streamlit."""

from dgviz.figures.depth import depth_curves, overlap_curves
from dgviz.figures.entry_map import entry_map
from dgviz.figures.frontier import frontier_plot
from dgviz.figures.histogram import spectrum_histogram
from dgviz.figures.methods import comparison_bars
from dgviz.figures.model_map import model_map
from dgviz.figures.noise import noise_bars, noise_by_model
from dgviz.figures.pair_map import agreement_map, overlap_map
from dgviz.figures.recovery import Bar, RepairPoint, recovery_bars, recovery_plane
from dgviz.figures.rule_model import rank_boxes, tau_curves
from dgviz.figures.rules import rules_plot
from dgviz.figures.spectrum import effect_plot, spectrum_plot
from dgviz.figures.study import axis_trends, combined_panels, recovery_panels
from dgviz.figures.style import plot_config, series_colour

__all__ = [
    "Bar",
    "RepairPoint",
    "agreement_map",
    "axis_trends",
    "combined_panels",
    "comparison_bars",
    "depth_curves",
    "effect_plot",
    "entry_map",
    "frontier_plot",
    "model_map",
    "noise_bars",
    "noise_by_model",
    "overlap_curves",
    "overlap_map",
    "plot_config",
    "rank_boxes",
    "recovery_bars",
    "recovery_panels",
    "recovery_plane",
    "rules_plot",
    "series_colour",
    "spectrum_histogram",
    "spectrum_plot",
    "tau_curves",
]
