"""What one direction does, as the component shows it, and how keeping or dropping it alone gets into the plan."""

from dataclasses import asdict
from typing import Any

import streamlit as st

from dgviz.analysis.direction import Alignment
from dgviz.analysis.lens import Lens, find_lens, vocabulary_tables
from dgviz.app import worker as work
from dgviz.app.family import counterpart, named_others
from dgviz.app.figure4 import asked_direction, decided_direction
from dgviz.app.kept import kept
from dgviz.app.layer import LayerView
from dgviz.app.layer_plan import plan_in_view
from dgviz.app.messages import as_sentence
from dgviz.app.plans import add_override, drop_override
from dgviz.app.state import View
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.remote.record import address_of, remote_file
from dgviz.command import Command
from dgviz.errors import DgvizError, LensError, PlanError, printable
from dgviz.repair.overrides import Override
from dgviz.rmt.assess import needs_delta
from dgviz.rmt.directions import Directions, told
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.weight import Weight
from dgviz.words import size

_PROBLEM = "direction-problem"


def about_direction(
    key: str, view: View, pair: CheckpointPair, layer: LayerView, spectrum: Spectrum, patience: float
) -> dict[str, Any] | None:
    """Return what is known of the direction that was clicked, as plain values; None where none is open.

    What takes longer than `patience` is missing, and ``waiting`` says that it is worth asking again.
    """
    number = asked_direction(key, layer.matrix.name)
    if not 1 <= number <= spectrum.s.size:
        return None
    shown: dict[str, Any] = {"number": number, "plan": _in_plan(view, layer, spectrum, number)}
    shown["problems"] = [problem] if (problem := st.session_state.pop(_PROBLEM, "")) else []
    try:
        found = work.direction_soon(*layer.weight, number, patience)
        others, problems = siblings(view, pair, layer)
        aligned = work.alignments_soon(*layer.weight, number, patience if found else 0.0, others)
        lens, why = lens_or_reason(layer.stamp, layer.matrix.name, number, pair, layer.matrix)
        read = work.reading_soon(*layer.weight, number, lens, patience if aligned else 0.0) if lens else None
    except DgvizError as error:
        return shown | {"problems": [*shown["problems"], str(error)], "waiting": False}
    shown["problems"] += problems
    shown["moves"] = None if found is None else asdict(found)
    shown["aligned"] = None
    if aligned is not None:
        named = {"base": aligned.base, **aligned.others}
        shown["aligned"] = [_told(name, alignment) for name, alignment in named.items()]
    shown["tokens"] = {"why": why} if why else None
    if read is not None:
        ends = {
            name: [asdict(token) | {"text": printable(token.text)} for token in end]
            for name, end in (("plus", read.plus), ("minus", read.minus))
        }
        shown["tokens"] = {**asdict(read), **ends, "says": as_sentence(read.sentence), "out": read.stands_out}
    return shown | {"waiting": found is None or aligned is None or (lens is not None and read is None)}


@kept
def lens_or_reason(
    stamp: str, name: str, number: int, _pair: CheckpointPair, _weight: Weight
) -> tuple[Lens | None, str]:
    """Return how a weight is read through base's vocabulary, or why it is not; neither where there are no tokens."""
    if vocabulary_tables(_pair.base) is None:
        return None, ""
    try:
        lens = find_lens(_pair.base, _weight)
    except LensError as error:
        return None, as_sentence(str(error))
    if remote_file(lens.table.file) is None:
        return lens, ""
    base, tuned = (address_of(side.path) or side.path for side in (_pair.base, _pair.tuned))
    command = Command("spectrum", base=base, tuned=tuned, tensor=name, lens=str(number))
    return None, f"Base is far away, and {size(lens.table.nbytes)} of it would be read for this: {command} does."


def _told(name: str, alignment: Alignment) -> dict[str, Any]:
    return {"name": name, **asdict(alignment)}


def siblings(view: View, pair: CheckpointPair, layer: LayerView) -> tuple[dict[str, Weight], list[str]]:
    """Return the same weight in the further fine-tunes of the view by their titles, and why it is missing in some."""
    found, problems = {}, []
    for title, name in named_others(view).items():
        try:
            _, found[title] = counterpart(view, pair, layer.matrix, name)
        except (DgvizError, OSError) as error:
            problems.append(f"{title}: {error}")
    return found, problems


def _in_plan(view: View, layer: LayerView, spectrum: Spectrum, number: int) -> dict[str, Any]:
    """Return what the plan does with a direction: whether it is kept, and whether that is said of it alone."""
    try:
        own = plan_in_view(view, layer).at(layer.matrix.tensor, layer.matrix.index)
        alone = number in own.directions.kept + own.directions.dropped
        if alone:
            return {"kept": number in own.directions.kept, "alone": True, "why": ""}
        if own.keep or not own.recipe.has_factors:
            why = f"takes {own.keep}'s values" if own.keep else f"uses {own.recipe.title}, which keeps no directions"
            return {"kept": None, "alone": False, "why": why}
        if needs_delta(spectrum, own.rule, own.params):
            return {"kept": None, "alone": False, "why": f"uses rule {own.rule}, which has not been applied here"}
        values = own.reshape(spectrum, tensor=layer.matrix.tensor.name).values
        return {"kept": bool(values[number - 1 : number].any()), "alone": False, "why": ""}
    except DgvizError as error:
        return {"kept": None, "alone": False, "why": f"cannot be applied: {error}"}


def alone_in_plan(view: View, layer: LayerView) -> dict[str, list[int]]:
    """Return the directions of the weight in view that the plan keeps and drops by themselves."""
    try:
        own = plan_in_view(view, layer).at(layer.matrix.tensor, layer.matrix.index).directions
    except DgvizError:
        own = Directions()  # it is said where the plan is drawn
    return {"kept": list(own.kept), "dropped": list(own.dropped)}


def decide(key: str, view: View, layer: LayerView) -> None:
    """Put what was decided of a direction into the plan."""
    decided = decided_direction(key, layer.matrix.name)
    if decided is None:
        return
    try:
        plan = plan_in_view(view, layer)
        override = plan.override_of(layer.matrix.tensor, layer.matrix.index)
        text = directed(override, f"name={layer.matrix.name}", *decided)
        if text is not None:
            Override.parse(text).applied(plan.default)
            add_override(view, text)
        elif override is not None:
            drop_override(view, str(override))
    except DgvizError as error:
        st.session_state[_PROBLEM] = str(error)


def directed(override: Override | None, selection: str, number: int, decision: str) -> str | None:
    """Return the override by which a direction is kept, dropped, or left to the threshold again.

    Parameters
    ----------
    override : Override or None
        What decides of the weight so far; its other settings stay.
    selection : str
        The weight.
    number : int
        The direction.
    decision : str
        ``"keep"``, ``"drop"`` or ``"leave"``.

    Returns
    -------
    str or None
        None where nothing is left to say of the weight alone.
    """
    settings = dict(override.settings) if override else {}
    if "keep" in settings:
        raise PlanError(
            f"the override {str(override)!r} takes {settings['keep']}'s values whole: take it out of the plan first"
        )
    own = Directions.parse(settings.pop("keep_directions", ""), settings.pop("drop_directions", ""))
    kept, dropped = set(own.kept) - {number}, set(own.dropped) - {number}
    if decision != "leave":
        (kept if decision == "keep" else dropped).add(number)
    settings |= {name: told(own) for name, own in (("keep_directions", kept), ("drop_directions", dropped)) if own}
    if not settings:
        return None
    return f"{selection}: {', '.join(f'{name}={value}' for name, value in settings.items())}"
