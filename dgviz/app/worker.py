"""Questions to the worker process: the pages never compute, and never import torch."""

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dgviz.analysis.direction import Alignments, Direction
from dgviz.analysis.effect import MethodPanel
from dgviz.analysis.lens import Lens, Reading
from dgviz.analysis.sides import Side
from dgviz.app.kept import kept
from dgviz.checkpoint import CheckpointPair
from dgviz.figures.figure4.maps import WHOLE, ComparedPanels, EntryPanels, NoiseTwin, SpectrumPanels, Window
from dgviz.jobs import Superseded, Worker
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.weight import Weight


@st.cache_resource(show_spinner=False)
def worker() -> Worker:
    """Return the one warm worker, starting in the background at the first call."""
    warm = Worker("dgviz.app.answers", threads=os.cpu_count())
    warm.start()
    return warm


def _visitor() -> str | None:
    """Return this browser tab's session: its newer questions replace its own older ones, nobody else's."""
    context = get_script_run_ctx()
    return context.session_id if context else None


def devices() -> dict[str, str] | None:
    """Return what can be computed on, label by device id, the default first; None while the worker starts."""
    answer = _devices()
    return dict(answer.result()) if answer.done() else None


@st.cache_resource(show_spinner=False)
def _devices() -> Future:
    """Ask the worker once, without waiting: only it may import torch, which takes seconds."""
    return _asked("devices")


def _asked(function: str, **arguments: Any) -> Future:
    """Return the worker's answer-to-be."""
    pool = ThreadPoolExecutor(1)
    answer = pool.submit(worker().call, function, **arguments)
    pool.shutdown(wait=False)
    return answer


@kept
def spectrum(weight: Weight, device: str, stamp: str) -> Spectrum:
    """Return a weight's spectrum, from the store or computed."""
    return worker().call("spectrum", group=_visitor(), weight=weight, device=device)


@kept
def spectrum_with_threshold(weight: Weight, device: str, stamp: str, rule: str, params: dict[str, Any]) -> Spectrum:
    """Return a weight's spectrum with the tau of a rule that needs the weight itself."""
    question = {"weight": weight, "device": device, "rule": rule, "params": params}
    return worker().call("spectrum_with_threshold", group=_visitor(), **question)


def spectrum_panels(weight: Weight, device: str, stamp: str, patience: float) -> SpectrumPanels | None:
    """Return the map behind the spectrum-space panels, or None where it is still being computed.

    It takes every direction of the update, several times the work of those above a threshold: a page shows what it
    has, and asks again.
    """
    return _soon(_spectrum_panels, (weight, device, stamp), patience)


def _soon(ask: Any, question: tuple, patience: float) -> Any | None:
    """Return an answer, or None where it takes longer than one waits; the question stays asked."""
    try:
        return ask(*question).result(timeout=patience)
    except TimeoutError:
        return None
    except Superseded:  # its question was dropped for another weight's, and now it is in view again
        ask.clear(*question)
        ask(*question)
        return None
    except Exception:
        ask.clear(*question)  # the next visit tries again
        raise


@kept
def _spectrum_panels(weight: Weight, device: str, stamp: str) -> Future:
    """Ask the worker once, without waiting; a question of its own group, which a moved tau does not replace."""
    return _asked("spectrum_panels", group=f"{_visitor()} directions", weight=weight, device=device)


@kept
def entry_panels(weight: Weight, device: str, stamp: str, rank: int) -> EntryPanels:
    """Return the maps of the entry-space panels at a rank."""
    return worker().call("entry_panels", group=_visitor(), weight=weight, device=device, rank=rank)


def entry_panels_soon(
    weight: Weight, device: str, stamp: str, rank: int, patience: float, window: Window = WHOLE
) -> EntryPanels | None:
    """Return the same, or None where it takes longer than one waits: a page shows what it has, and asks again."""
    return _soon(_entry_panels, (weight, device, stamp, rank, window), patience)


@kept
def _entry_panels(weight: Weight, device: str, stamp: str, rank: int, window: Window) -> Future:
    """Ask the worker once, without waiting."""
    question = {"weight": weight, "device": device, "rank": rank, "window": window}
    return _asked("entry_panels", group=f"{_visitor()} entries", **question)


def direction_soon(weight: Weight, device: str, stamp: str, number: int, patience: float) -> Direction | None:
    """Return what one direction of a weight's update does, or None where it takes longer than one waits."""
    return _soon(_direction, (weight, device, stamp, number), patience)


@kept
def _direction(weight: Weight, device: str, stamp: str, number: int) -> Future:
    """Ask the worker once, without waiting."""
    return _asked("direction", group=f"{_visitor()} direction", weight=weight, device=device, number=number)


def alignments_soon(
    weight: Weight, device: str, stamp: str, number: int, patience: float, others: Mapping[str, Weight]
) -> Alignments | None:
    """Return how one direction lies to base's own and to those of other fine-tunes, or None as above."""
    return _soon(_alignments, (weight, device, stamp, number, dict(others)), patience)


@kept
def _alignments(weight: Weight, device: str, stamp: str, number: int, others: dict[str, Weight]) -> Future:
    """Ask the worker once, without waiting."""
    question = {"weight": weight, "device": device, "number": number, "others": others}
    return _asked("alignments", group=f"{_visitor()} alignments", **question)


def reading_soon(weight: Weight, device: str, stamp: str, number: int, lens: Lens, patience: float) -> Reading | None:
    """Return one direction read through base's vocabulary, or None as above."""
    return _soon(_reading, (weight, device, stamp, number, lens), patience)


@kept
def _reading(weight: Weight, device: str, stamp: str, number: int, lens: Lens) -> Future:
    """Ask the worker once, without waiting."""
    question = {"weight": weight, "device": device, "number": number, "lens": lens, "stamp": stamp}
    return _asked("reading", group=f"{_visitor()} reading", **question)


def compared_soon(
    weight: Weight, device: str, stamp: str, sigma: float, sides: tuple[Side, Side], patience: float
) -> ComparedPanels | None:
    """Return the maps of two sides of a comparison, or None where it takes longer than one waits."""
    return _soon(_compared, (weight, device, stamp, sigma, *(side.key for side in sides), *sides), patience)


@kept
def _compared(
    weight: Weight, device: str, stamp: str, sigma: float, key_a: str, key_b: str, _a: Side, _b: Side
) -> Future:
    """Ask the worker once, without waiting."""
    question = {"weight": weight, "device": device, "sigma": sigma, "a": _a, "b": _b}
    return _asked("compared_panels", group=f"{_visitor()} compared", **question)


@kept
def noise_twin(
    weight: Weight,
    device: str,
    stamp: str,
    sigma: float,
    tau: float,
    rank: int,
    window: Window = WHOLE,
    against: float | None = None,
) -> NoiseTwin:
    """Return noise of a weight's shape and sigma, drawn as its update at a tau that keeps so many directions."""
    question = {"weight": weight, "device": device, "sigma": sigma, "tau": tau, "rank": rank, "window": window}
    question["against"] = against
    return worker().call("noise_twin", group=f"{_visitor()} twin", **question)


@kept
def method_panel(weight: Weight, device: str, stamp: str, plan: RepairPlan, _pair: CheckpointPair) -> MethodPanel:
    """Return a weight's update under one method, as a map and figures."""
    question = {"pair": _pair, "weight": weight, "device": device, "plan": plan}
    return worker().call("method_panel", group=f"{_visitor()} methods", **question)
