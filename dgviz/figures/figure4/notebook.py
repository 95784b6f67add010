"""Figure 4 of one weight in a notebook: the dashboard's component as an anywidget, with the kernel to answer it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from dgviz.analysis.direction import describe_direction
from dgviz.errors import DgvizError, PairError
from dgviz.figures.figure4 import component
from dgviz.figures.figure4.maps import WHOLE, EntryPanels
from dgviz.figures.figure4.panels import compute_entry_panels, compute_spectrum_panels, compute_twin
from dgviz.figures.figure4.payload import figure4_payload, matrix_axes, start_tau
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import apply_rule
from dgviz.rmt.threshold import find_rule
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.weight import Weight
from dgviz.words import exact_number

SCRIPT = Path(__file__).with_suffix(".js")
STATES = "released", "window", "pooling", "twin", "direction"
"""What the component tells: where tau was let go, the part looked at, its pooling, noise, a direction."""

_ALONE = """
.places, .places.inspecting { display: grid; grid-template-columns: minmax(0, 1fr); }
.places.inspecting { grid-template-columns: minmax(0, 1fr) 272px; }
.places > nav, [data-el=keys] { display: none; }
.key .tick { font-size: 11px; left: 17px; }
"""  # without the model's map, in a wider font
_SET = "is set in Python: an override keeps or drops single directions"


def notebook_script() -> str:
    """Return the component as a module for notebooks."""
    own = component.script().replace("export default function (", "const mount = function (")
    sources = {"STYLE": f"{component.style()}\n{_ALONE}", "MARKUP": component.markup()}
    constants = "\n".join(f"const {name} = {json.dumps(text)};" for name, text in sources.items())
    return "\n".join([own, SCRIPT.read_text(encoding="utf-8"), constants])


class Figure4Widget(anywidget.AnyWidget):
    """Figure 4 of one weight, which follows tau.

    Parameters
    ----------
    weight : Weight
        Which.
    plan : RepairPlan
        Whose threshold it begins with.
    device : str
        Where it is computed.
    """

    _esm = notebook_script()
    payload = traitlets.Bytes().tag(sync=True)
    states = traitlets.List(list(STATES)).tag(sync=True)
    released = traitlets.Dict().tag(sync=True)
    window = traitlets.Dict().tag(sync=True)
    pooling = traitlets.Dict().tag(sync=True)
    twin = traitlets.Dict(allow_none=True).tag(sync=True)
    direction = traitlets.Dict(allow_none=True).tag(sync=True)

    def __init__(self, weight: Weight, plan: RepairPlan, device: str = "auto") -> None:
        super().__init__()
        own = plan.at(weight.tensor, weight.index)
        if own.keep:
            raise PairError(f"the plan keeps {weight.name} as in {own.keep}: there is no threshold to draw")
        self._opened = OpenWeight(weight, device)
        self._spectrum = self._opened.spectrum_with(own.rule, own.params)
        self._threshold = apply_rule(self._spectrum, own.rule, own.params)
        self._rule = find_rule(own.rule).title
        self._view = f"{weight.name} {own.label}"
        self._maps = compute_spectrum_panels(self._opened.decomposition)
        self._drawn: dict[Any, EntryPanels] = {}
        self._draw()
        self.observe(lambda change: self._draw(), list(STATES))

    @property
    def tau(self) -> float:
        """Where tau stands."""
        if self.released.get("view") == self._view:
            return float(self.released["tau"])
        return start_tau(self._spectrum.s, self._threshold)

    @property
    def rank(self) -> int:
        """Directions that tau keeps."""
        return int(np.count_nonzero(self._spectrum.s > self.tau))

    @property
    def override(self) -> str:
        """What a plan says so that it cuts this weight here: one of the overrides of `dgviz.Pair.plan`."""
        return f"name={self._opened.weight.name}: tau={exact_number(self.tau)}"

    def _draw(self) -> None:
        """Send what belongs to the present state."""
        weight, spectrum, threshold = self._opened.weight, self._spectrum, self._threshold
        window = component.window_of(self.window, self.pooling, weight.name, spectrum.shape)
        entries = compute_entry_panels(
            self._opened.decomposition, self._opened.delta, self.rank, self._drawn.get(window), window
        )
        self._drawn = {WHOLE: self._drawn.get(WHOLE, entries), window: entries}
        twin = None
        if (self.twin or {}).get("view") == self._view and not threshold.degenerate and threshold.sigma > 0:
            twin = compute_twin(entries, threshold.sigma, self.tau, self._opened.device)
        self.payload = figure4_payload(
            self._view,
            spectrum.s,
            spectrum.shape,
            threshold,
            tau=self.tau,
            rule=self._rule,
            spectrum=self._maps,
            entries=entries,
            nonzero_shape=spectrum.nonzero_shape,
            twin=twin,
            about={
                "weight": weight.name,
                "axes": matrix_axes(weight.tensor.base.shape, weight.index is not None),
                "direction": self._describe(),
            },
        )

    def _describe(self) -> dict[str, Any] | None:
        """Return what the direction does that was clicked."""
        asked = self.direction or {}
        number = int(asked.get("number") or 0) if asked.get("weight") == self._opened.weight.name else 0
        if not 1 <= number <= self._spectrum.s.size:
            return None
        shown = {
            "number": number,
            "plan": {"kept": None, "alone": False, "why": _SET},
            "waiting": False,
            "aligned": [],
        }
        try:
            moves = describe_direction(self._spectrum.s, number, *self._opened.vectors(number))
            return shown | {"problems": [], "moves": asdict(moves)}
        except DgvizError as error:
            return shown | {"problems": [str(error)], "moves": None}
