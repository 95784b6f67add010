"""Figure 4 of one weight drawn from its checkpoints, for the command line; torch."""

import numpy as np

from dgviz.errors import PairError
from dgviz.figures.figure4.panels import compute_entry_panels, compute_spectrum_panels
from dgviz.figures.figure4.payload import start_tau
from dgviz.figures.figure4.static import caption_of, figure4_svg
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import apply_rule
from dgviz.rmt.threshold import find_rule
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.weight import Weight


def draw_figure4(weight: Weight, plan: RepairPlan, sides: tuple[str, str], device: str = "auto") -> str:
    """Return Figure 4 of one weight under the threshold of a plan, as SVG; `sides` name base and tuned."""
    own = plan.at(weight.tensor, weight.index)
    if own.keep:
        raise PairError(f"the plan keeps {weight.name} as in {own.keep}: there is no threshold to draw")
    opened = OpenWeight(weight, device)
    spectrum = opened.spectrum_with(own.rule, own.params)
    threshold = apply_rule(spectrum, own.rule, own.params)
    s, tau = spectrum.s, start_tau(spectrum.s, threshold)
    entries = compute_entry_panels(opened.decomposition, opened.delta, int(np.count_nonzero(s > tau)))
    caption = caption_of(weight.name, spectrum.shape, sides, find_rule(own.rule).title, s, tau)
    directions = compute_spectrum_panels(opened.decomposition, sketch=False)
    return figure4_svg(
        s, threshold, entries, directions, tau=tau, nonzero_shape=spectrum.nonzero_shape, caption=caption
    )
