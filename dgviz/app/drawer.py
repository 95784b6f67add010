"""The drawer of the plan: what every weight gets, what is treated apart, what that does, and its export."""

import functools
from collections.abc import Callable

import streamlit as st

from dgviz.app.export_options import choose_output
from dgviz.app.export_page import draw_plan, free_folder, suggested_name
from dgviz.app.export_result import draw_result
from dgviz.app.jobs import draw_command, draw_list, draw_start_error, try_start
from dgviz.app.messages import plain, show_error
from dgviz.app.method import choose_method, current_method
from dgviz.app.methods_preview import load_preview
from dgviz.app.overrides import draw_overrides
from dgviz.app.pair import checkpoint_path, load_pair
from dgviz.app.plan_link import offer_plan, plan_link
from dgviz.app.plans import add_override, planned, read_saved, take_plan
from dgviz.app.roots import confine, typed_path, writable_home
from dgviz.app.rules import current_rule
from dgviz.app.selection import choose_names
from dgviz.app.spectra import load_spectra
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.command import Command
from dgviz.errors import DgvizError, ExportError
from dgviz.files import pretty_json
from dgviz.forecast.words import averaging_words
from dgviz.jobs import Job
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan, parse_plan
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.words import exact_number


def draw_drawer(view: View) -> None:
    """Draw the plan of the pair in view."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Plan", anchor=False)
        st.button(
            "Close the plan",
            key="plan-close",
            icon=":material/close:",
            type="tertiary",
            on_click=change_view,
            kwargs={"plan": ""},
        )
    try:
        pair = load_pair(view)
        if not pair.repairable:
            pair.refuse_blocked()
    except (DgvizError, OSError) as error:
        show_error(error)
        return
    offer_plan(view)
    st.markdown("**Every weight, unless said below**")
    with st.expander(_default_words(view), icon=":material/tune:"):
        method = choose_method(view)
        include, exclude = choose_names(view, "plan-")
    st.markdown("**Weights treated apart**, the later one wins")
    if view.tau and view.weight:
        _offer_tau(view)
    draw_overrides(view)
    loaded = st.container()
    st.markdown("**Write**")
    output = choose_output()
    base, tuned = checkpoint_path(view.base), checkpoint_path(view.tuned)
    suggested = suggested_name(tuned, method, output.format)
    folder = f"suggested {suggested}"
    if folder not in st.session_state:  # chosen once, so that it does not move on when the export has filled it
        st.session_state[folder] = str(free_folder(writable_home() / "dgviz-exports" / suggested))
    # As the field's default: a value set by its key is sent once, and a browser that is still loading misses it.
    named = st.text_input("Output folder (new or empty)", st.session_state[folder], key=suggested).strip()
    try:
        out = typed_path(named)
        if not named:  # a path of no name is the folder the server was started in
            raise ExportError("the output folder has no name; give a new or empty folder")
        confine(out)
        chosen = load_pair(view, include or None, exclude or None)
        default = {**method, "include": include or None, "exclude": exclude or None, "dtype": output.dtype}
        repair = planned(view, chosen, **default)
    except DgvizError as error:
        show_error(error)
        with loaded:
            _load(view)
        draw_list("repair", functools.partial(draw_result, view), of=_of_pair(view))
        return
    with loaded:
        _load(view, repair)
    written = {"format": output.format, **output.arguments, "device": view.device}
    command = Command("repair", base=base, tuned=tuned, out=out, **repair.arguments, **written)
    if draw_plan(chosen, repair, out, output):
        _draw_effect(chosen, repair)
        _draw_alternative(view, repair)
        # At the drawer's lower edge: a button that the lines above it push down while they load loses clicks.
        st.button(
            "Write checkpoint",
            key="write",
            type="primary",
            icon=":material/save:",
            on_click=try_start,
            args=(command, f"{tuned.name} → {out.name}", out),
        )
    draw_start_error()
    draw_command(command)
    draw_list("repair", functools.partial(draw_result, view), of=_of_pair(view))


def _of_pair(view: View) -> Callable[[Job], bool]:
    """Return what tells the exports of the pair in view from those of others."""
    sides = {str(checkpoint_path(side)) for side in (view.base, view.tuned)}
    return lambda job: sides <= set(job.command)


def _load(view: View, plan: RepairPlan | None = None) -> None:
    """Offer to keep the plan as a file, and to take one from a file."""
    with st.expander("Save, load, link", icon=":material/description:"):
        if plan is not None:
            name = f"{checkpoint_path(view.tuned).name}-plan.json"
            data = pretty_json(plan.to_json())
            st.download_button("Save the plan", data, name, "application/json", icon=":material/download:")
            st.caption("A link to this view with the plan, to copy; whoever follows it is asked before it counts:")
            try:
                st.code(plan_link(plan), language=None)
            except DgvizError as error:
                st.caption(plain(str(error)))
        given = st.file_uploader("A plan's file, or an export's dgviz.json", type="json", key="plan-file")
        if given is None:
            return
        try:
            found = parse_plan(given.getvalue(), given.name)
        except DgvizError as error:
            show_error(error)
            return
        st.button("Take this plan", icon=":material/playlist_add_check:", on_click=take_plan, args=(view, found))


def _default_words(view: View) -> str:
    """Return in a few words what every weight gets."""
    method, settings = current_method(view)
    default = {"method": method.name, "method_params": settings}
    if method.thresholded:
        rule, params = current_rule(view)
        shrinker = view.shrinker if view.shrinker in SHRINKERS else RepairPlan().shrinker
        default |= {"rule": rule.name, "params": params, "shrinker": shrinker}
    words = [RepairPlan(**default).title, *["not every weight"] * bool(view.include or view.exclude)]
    return ", ".join(words).replace("*", r"\*")


def _draw_effect(pair: CheckpointPair, plan: RepairPlan) -> None:
    """Say what the plan makes of the weights whose spectra are known."""
    spectra = load_spectra(pair)
    if not spectra.weights:
        st.caption("What this does to the update as a whole is known after a scan.")
        return
    owns = [plan.at(stored.weight.tensor, stored.weight.index) for stored in spectra.weights]
    if not all(own.keep or own.recipe.spectral for own in owns):
        st.caption(f"What {plan.recipe.title} does to the update is not known from spectra; the methods' table is.")
        return
    try:
        found = load_preview(pair, spectra, plan)
    except DgvizError as error:
        st.caption(str(error))
        return
    known = f" (of the {len(spectra.weights):,} weights scanned so far)" if spectra.missing else ""
    total = sum(stored.spectrum.nonzero_s.size for stored in spectra.weights)
    st.markdown(
        f"**{100 * found.norm_kept**2:.1f} %** of the update's energy and **{found.directions:,}** of {total:,} "
        f"directions stay{known}."
    )


def _draw_alternative(view: View, plan: RepairPlan) -> None:
    """Say how averaging did where it was measured, next to DG-Hard."""
    if plan.method != RepairPlan().method:
        return
    for method in (method for method in METHODS.values() if method.averages):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Averaging with base ({method.title}): {averaging_words()}.")
            st.button(
                "Use it instead",
                key=f"plan-instead-{method.name}",
                type="tertiary",
                on_click=change_view,
                kwargs={"method": method.name, "settings": ""},
            )


def _offer_tau(view: View) -> None:
    """Offer to put a threshold that was set by hand into the plan, where it is not there."""
    weight = view.weight if view.index is None else f"{view.weight}[{view.index}]"
    try:
        text = f"name={weight}: tau={exact_number(float(view.tau))}"
    except ValueError:
        return
    if text in read_saved(view).overrides:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(plain(f"τ = {view.tau} was set by hand on {weight}, and is not in the plan."))
        st.button(
            "This weight only", key="offer-tau", icon=":material/add:", on_click=add_override, args=(view, text)
        )
