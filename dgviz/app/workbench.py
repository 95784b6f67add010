"""The workbench on one weight: the model's map and all of Figure 4 side by side, one line of controls, and more."""

import functools
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_map import TowerMap, map_tower, towers
from dgviz.analysis.model_spectra import Assessment, ModelSpectra
from dgviz.app import worker as work
from dgviz.app.compare import draw_rules
from dgviz.app.direction import about_direction, alone_in_plan, decide
from dgviz.app.figure4 import (
    asked_window,
    figure4_payload,
    map_order,
    opened_weight,
    pictures_saved,
    selected_names,
    start_tau,
    waits_for_rest,
    wants_twin,
    workbench,
)
from dgviz.app.kept import kept
from dgviz.app.layer import LayerView, chosen_tau, draw_provenance, draw_spectrum, read_weight_spectrum, remember_tau
from dgviz.app.layer_plan import Selection, draw_in_plan, selection_of
from dgviz.app.messages import answered, as_sentence, show_error, show_warning
from dgviz.app.methods import draw_methods
from dgviz.app.methods_preview import load_matrices
from dgviz.app.pair import checkpoint_label
from dgviz.app.plans import PLAN_CHANGED, read_saved
from dgviz.app.rules import rule_button
from dgviz.app.scale import WEIGHT_PARTS, choose_scale, choose_shown, on_model
from dgviz.app.sides import Comparison, draw_sides, plan_against, read_comparison
from dgviz.app.spectra import load_assessments, load_spectra
from dgviz.app.state import View, change_view, current_view
from dgviz.app.verdict import diagnosed, draw_verdict, verdict_badge
from dgviz.app.weights import step_weight, weight_in_view
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.module_path import module_path
from dgviz.errors import DgvizError
from dgviz.figures.cells import model_cells
from dgviz.figures.figure4.maps import WHOLE, EntryPanels, SpectrumPanels
from dgviz.figures.figure4.payload import matrix_axes
from dgviz.figures.figure4.static import caption_of, figure4_svg
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import apply_rule, needs_delta
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.weight import Weight

_KEY = "workbench"
_PICTURES = "figure4-pictures"  # how many were asked for
_FIRST_PATIENCE, _PATIENCE = 1.0, 0.2  # seconds for the maps: most appear in one piece; short looks after that
_FIRST_COLOUR = "energy_kept"  # ranks of different shapes do not compare


@st.fragment
def draw_workbench(pair: CheckpointPair) -> None:
    """Draw the line of controls, the map and the figure; a click on the map and a released tau run only this."""
    view = current_view()
    if on_model(view) or st.session_state.pop(PLAN_CHANGED, False):
        st.rerun()  # what stands outside this part of the page is another
    weight = weight_in_view(view, pair)
    st.set_page_config(page_title=f"{weight.name} · {checkpoint_label(view.tuned)}")
    line = st.container(key="line", horizontal=True, vertical_alignment="center")
    with line:
        choose_scale(view)
        step_weight(view, pair, weight)
        rule, params = rule_button(view)
    stamp = f"{pair.base.fingerprint[:12]}{pair.tuned.fingerprint[:12]}"
    layer = LayerView(weight, rule, params, view.device, stamp, (view.base, view.tuned))
    spectrum = read_weight_spectrum(layer.weight)
    if needs_delta(spectrum, rule.name, params):
        with st.spinner(f"{rule.title}: working on the weight itself ..."), answered():
            spectrum = work.spectrum_with_threshold(*layer.weight, rule.name, params)
    threshold = apply_rule(spectrum, rule.name, params)
    own_tau, chosen = start_tau(spectrum.s, threshold), chosen_tau()
    tau = own_tau if chosen is None else chosen
    with line:
        title, diagnosis = diagnosed(spectrum, rule, threshold)
        with st.popover(verdict_badge("", diagnosis)):
            draw_verdict(title, diagnosis)
            for warning in (*threshold.warnings, *spectrum.warnings):
                show_warning(as_sentence(warning))
        with st.popover("Add to plan", icon=":material/playlist_add:"):
            draw_in_plan(view, layer, spectrum, tau, own_tau, chosen is not None, _beside(pair, weight))
        draw_sides(view, layer, tau, chosen is not None)
        with st.popover("Details", icon=":material/info:"):
            st.text(weight.name)
            _choose_colour(view)
            picture = st.container(horizontal=True)
            draw_provenance(layer, spectrum, tau, own_tau)
    comparison = read_comparison(view, pair, layer, tau, chosen is not None)
    _figure(picture, view, pair, layer, spectrum, threshold, tau, own_tau, comparison)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**More on this weight**")
        choose_shown(view, WEIGHT_PARTS)
    if view.show == "spectrum":
        draw_spectrum(layer, spectrum, threshold, tau, moved=chosen is not None)
    elif view.show == "rules":
        draw_rules(layer.weight, spectrum)
    elif view.show == "methods":
        draw_methods(pair, layer.weight, spectrum)


def _beside(pair: CheckpointPair, weight: Weight) -> dict[str, Selection]:
    """Return what can get the same as the weight in view, by what it is called: its module, what is selected."""
    path, chosen = weight.module_path, selected_names(_KEY)
    alike = [
        tensor.name
        for tensor in pair.repairable
        for other in [module_path(tensor.name)]
        if (other.tower, other.module) == (path.tower, path.module)
    ]
    module, selected = selection_of(pair, alike) if len(alike) > 1 else None, selection_of(pair, chosen)
    found = {"This module": module} if module is not None else {}
    return found if selected is None else found | {f"The {len(selected.names)} selected": selected}


def _choose_colour(view: View) -> None:
    """Let the user choose what the map shows."""
    st.session_state["map-shows"] = _colour(view)
    st.selectbox(
        "The map shows",
        list(FIGURES),
        format_func=lambda name: FIGURES[name].title,
        key="map-shows",
        on_change=lambda: change_view(quantity=st.session_state["map-shows"]),
    )


def _colour(view: View) -> str:
    """Return the figure that the map shows: the one in view, or the first where nobody has chosen."""
    return view.quantity if view.quantity in FIGURES else _FIRST_COLOUR


def _figure(
    picture: DeltaGenerator,
    view: View,
    pair: CheckpointPair,
    layer: LayerView,
    spectrum: Spectrum,
    threshold: Threshold,
    tau: float,
    own_tau: float,
    comparison: Comparison | None,
) -> None:
    """Draw map and figure."""
    rank = int(np.count_nonzero(spectrum.s > tau))
    sigma = 0.0 if threshold.degenerate else threshold.sigma
    compared = twin = None
    with answered():
        # Spectrum and tau are on the screen first; the maps of a large weight follow when they are there.
        patience = _PATIENCE if waits_for_rest(_KEY, layer.id) else _FIRST_PATIENCE
        window = WHOLE if comparison else asked_window(_KEY, layer.matrix.name, spectrum.shape)
        entries = work.entry_panels_soon(*layer.weight, rank, patience, window)
        maps = work.spectrum_panels(*layer.weight, patience)
        direction = about_direction(_KEY, view, pair, layer, spectrum, patience)
        if comparison is not None:
            compared = work.compared_soon(*layer.weight, sigma, comparison.sides, patience)
        against = compared.a.tau if compared is not None and comparison.has_twin else None
        if entries is not None and wants_twin(_KEY, layer.id) and sigma > 0 and (against or not comparison):
            twin = work.noise_twin(*layer.weight, sigma, tau, rank, window, against)
    saved = None
    if maps is not None and entries is not None:
        with picture:
            whole = entries if window == WHOLE else work.entry_panels(*layer.weight, rank)
            saved = _offer_picture(pair, layer, spectrum, threshold, whole, maps, tau)
    payload = figure4_payload(
        layer.id,
        spectrum.s,
        spectrum.shape,
        threshold,
        tau=tau,
        rule=layer.rule.title,
        spectrum=maps,
        entries=entries,
        nonzero_shape=spectrum.nonzero_shape,
        map=_map(view, pair, layer),
        compare=comparison and comparison.header(),
        compared=compared,
        twin=twin,
        about={
            "weight": layer.matrix.name,
            "axes": matrix_axes(layer.matrix.tensor.base.shape, layer.matrix.index is not None),
            "direction": direction,
            "alone": alone_in_plan(view, layer),
            "picture": saved,
        },
    )
    release = functools.partial(remember_tau, _KEY, layer, own_tau)
    workbench(_KEY, payload, release, _open, functools.partial(decide, _KEY, view, layer))


def _offer_picture(
    pair: CheckpointPair,
    layer: LayerView,
    spectrum: Spectrum,
    threshold: Threshold,
    entries: EntryPanels,
    maps: SpectrumPanels,
    tau: float,
) -> dict[str, Any] | None:
    """Offer the figure as a file, drawn when it is asked for; return the one that the browser is to make a PNG of."""

    def draw() -> str:
        sides = pair.base.path.name, pair.tuned.path.name
        caption = caption_of(spectrum.name, spectrum.shape, sides, layer.rule.title, spectrum.s, tau, maps.exact)
        shape = spectrum.nonzero_shape
        return figure4_svg(spectrum.s, threshold, entries, maps, tau=tau, nonzero_shape=shape, caption=caption)

    st.download_button(
        "Figure 4 (SVG)",
        draw,
        file_name=f"{spectrum.name}.svg",
        mime="image/svg+xml",
        icon=":material/image:",
        help="Save all seven panels as one SVG, lettered and captioned",
        key="figure4-svg",
        on_click="ignore",
    )
    asked, saved = st.session_state.get(_PICTURES, 0), pictures_saved(_KEY)
    st.button(
        "Figure 4 (PNG)",
        icon=":material/photo_camera:",
        help="The same at three times its size, made by the browser",
        key="figure4-png",
        on_click=st.session_state.__setitem__,
        args=(_PICTURES, max(asked, saved) + 1),
    )
    return {"number": asked, "name": f"{spectrum.name}.png", "svg": draw()} if asked > saved else None


def _map(view: View, pair: CheckpointPair, layer: LayerView) -> dict[str, Any]:
    """Return the model's map under the rule in view."""
    spectra, order = load_spectra(pair), map_order(_KEY)
    against = plan_against(view)
    if order == "between" and against is None:
        order = "layers"
    figure = "residual_fit" if order == "fit" else _colour(view)
    known, before = len(spectra.weights), []
    try:
        looked = RepairPlan(layer.rule.name, layer.params)
        parts, note = _parts(layer.stamp, looked, figure, known, pair, spectra)
        if against is not None:
            before, _ = _parts(layer.stamp, against, figure, known, pair, spectra)
    except DgvizError as error:  # a rule that needs more than what a scan has stored
        show_error(error)
        return model_cells((), FIGURES[figure], layer.matrix.tensor.name, ())
    apart = _overridden(view, pair)
    return model_cells(parts, FIGURES[figure], layer.matrix.tensor.name, apart, note, order, before)


@kept
def _parts(
    stamp: str, plan: RepairPlan, figure: str, known: int, _pair: CheckpointPair, _spectra: ModelSpectra
) -> tuple[list[TowerMap], str]:
    """Return the cells of every tower under a plan, and a sentence on all weights; once for what is known."""
    if plan.is_threshold:
        rows = load_assessments(_pair, _spectra, plan.rule, plan.params)
    else:
        rows = load_matrices(_pair, _spectra, plan)
    names = [paired.name for paired in _pair.repairable]
    parts = [map_tower(rows, _spectra.missing, FIGURES[figure], tower) for tower in (*towers(names), "")]
    return parts, _words(rows, _spectra)


def _words(rows: list[Assessment], spectra: ModelSpectra) -> str:
    """Return what the rule makes of all weights that are known."""
    energy = sum(row.spectrum.energy for row in rows)
    if not rows or not energy:
        return f"{len(spectra.missing)} weights are not scanned yet" if spectra.missing else ""
    kept = sum(row.energy_kept * row.spectrum.energy for row in rows) / energy
    changed = sum(row.rank < np.count_nonzero(row.spectrum.s) for row in rows)
    missing = f"; {len(spectra.missing)} not scanned yet" if spectra.missing else ""
    ranks = sum(row.rank for row in rows)
    energy_kept = f"{100 * kept:.1f} % of the energy"
    return f"All weights, by default: {changed} changed, {ranks:,} directions and {energy_kept} kept{missing}"


def _overridden(view: View, pair: CheckpointPair) -> set[str]:
    """Return the tensors that the plan treats apart."""
    try:
        plan = RepairPlan(overrides=read_saved(view).overrides)
    except DgvizError:
        return set()  # it is said where the plan is drawn
    selectors = [override.selector for override in plan.overrides]
    return {tensor.name for tensor in pair.repairable if any(selector.finds(tensor) for selector in selectors)}


def _open() -> None:
    """Look at the weight whose cell was clicked."""
    name, bracket, index = opened_weight(_KEY).partition("[")
    if name:
        change_view(weight=name, slice=index.rstrip("]") if bracket else "")
