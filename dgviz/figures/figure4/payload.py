"""The bytes that carry Figure 4 to the browser: a length-prefixed JSON header, then numbers and 8-bit maps."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dgviz.figures.figure4.maps import ComparedPanels, EntryPanels, NoiseTwin, Scale, SpectrumPanels
from dgviz.rmt.law import aspect_ratio, mp_sv_cdf
from dgviz.rmt.null import noise_distance
from dgviz.rmt.threshold import DEGENERATE_MEDIAN, Threshold

_ALIGN = 8  # float64 views in the browser need offsets that are multiples of 8
_CODES = {"float64": "<f8", "float32": "<f4", "uint8": "|u1"}


def pack(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return header and arrays as one message."""
    listing, body = [], bytearray()
    for name, array in arrays.items():
        if array.dtype.name not in _CODES:
            raise ValueError(f"array {name!r} is {array.dtype}; the payload carries {', '.join(_CODES)}")
        listing.append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "offset": len(body)})
        body += np.ascontiguousarray(array, dtype=_CODES[array.dtype.name]).tobytes()
        body += bytes(-len(body) % _ALIGN)
    text = json.dumps({**header, "arrays": listing}, allow_nan=False, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + bytes(-(4 + len(text)) % _ALIGN) + bytes(body)


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a message, the inverse of `pack`."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    start = 4 + length + (-(4 + length) % _ALIGN)
    arrays = {}
    for item in header.pop("arrays"):
        count = math.prod(item["shape"])
        flat = np.frombuffer(message, _CODES[item["dtype"]], count, start + item["offset"])
        arrays[item["name"]] = flat.reshape(item["shape"])
    return header, arrays


def start_tau(s: ArrayLike, threshold: Threshold) -> float:
    """Return the tau at which ``s > tau`` counts the rule's own rank.

    Parameters
    ----------
    s : (p,) array
        Singular values, descending.
    threshold : Threshold
        What the rule found.

    Returns
    -------
    float
        The rule's tau; for a low-rank delta, whose rounding-level values lie above that tau but are not counted, the
        rounding level.
    """
    values = np.asarray(s, dtype=np.float64)
    if np.count_nonzero(values > threshold.tau) == threshold.rank:
        return float(threshold.tau)
    return max(float(threshold.tau), DEGENERATE_MEDIAN * float(values[0]))


def figure4_payload(
    view: str,
    s: ArrayLike,
    shape: tuple[int, int],
    threshold: Threshold,
    *,
    tau: float | None = None,
    rule: str = "",
    spectrum: SpectrumPanels | None = None,
    entries: EntryPanels | None = None,
    nonzero_shape: tuple[int, int] | None = None,
    map: Mapping[str, Any] | None = None,
    compare: Mapping[str, Any] | None = None,
    compared: ComparedPanels | None = None,
    twin: NoiseTwin | None = None,
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """Return everything Figure 4 needs to follow tau in the browser.

    Parameters
    ----------
    view : str
        Name of what is looked at (weight and rule): a released tau belongs to the view it was released on.
    s : (p,) array
        Singular values, descending.
    shape : (int, int)
        Rows and columns of the delta.
    threshold : Threshold
        The rule's result; the reset button goes back to it.
    tau : float, optional
        Where tau stands; the rule's own by default.
    rule : str
        Title of the rule.
    spectrum : SpectrumPanels, optional
        Maps of the lower row; panels say they are being computed while absent.
    entries : EntryPanels, optional
        Maps of the upper row at some rank.
    nonzero_shape : (int, int), optional
        Rows and columns that are not zero throughout, of which the noise law is; all by default.
    map : mapping, optional
        The model's map beside it, as plain values: see `dgviz.figures.model_cells`.
    compare : mapping, optional
        That two sides are compared: ``labels`` of A and B, whether B is ``live``, which is what is in view and
        follows tau, whether both are of the ``same`` directions, ``cuts`` that keep directions whole, and
        ``model``, what they make of the whole model.
    compared : ComparedPanels, optional
        Their maps; panels say they are being computed while absent.
    twin : NoiseTwin, optional
        Noise to be shown in the update's place while a key is held.
    about : mapping, optional
        Further plain values of the header: ``axes`` (`matrix_axes`), ``direction`` and ``alone``, the direction that
        was asked for and those that the plan treats by themselves, and ``picture``, a static figure to be saved.

    Returns
    -------
    bytes
        A message of `pack`. ``law`` holds G(s_i / (sigma sqrt N)) of the nonzero block, from which the browser
        computes the MP-fit; it is absent, with a reason in the header, where sigma is no noise estimate.
        ``noiseFit`` is the MP-fit that iid noise of the nonzero shape usually scores.

    Raises
    ------
    ValueError
        If s, shape and the panels are not of one delta.
    """
    values = np.asarray(s, dtype=np.float64)
    if values.shape != (min(shape),):
        raise ValueError(
            f"a {shape[0]} x {shape[1]} delta has {min(shape)} singular values; got shape {values.shape}"
        )
    for panels in (spectrum, entries):
        if panels is not None and tuple(panels.shape) != tuple(shape):
            raise ValueError(
                f"{type(panels).__name__} of a {panels.shape} delta given for one of shape {tuple(shape)}"
            )
    reason = law_missing(threshold)
    arrays: dict[str, NDArray[Any]] = {"s": values}
    if not reason:
        live = nonzero_shape or shape
        unit = threshold.sigma * math.sqrt(max(live))
        arrays["law"] = np.asarray(mp_sv_cdf(values[: min(live)] / unit, aspect_ratio(live)), dtype=np.float64)
    header: dict[str, Any] = {
        "view": view,
        "shape": [int(shape[0]), int(shape[1])],
        "rule": rule or threshold.rule,
        "ruleTau": start_tau(values, threshold),
        "tau": start_tau(values, threshold) if tau is None else float(tau),
        "sigma": None if reason else float(threshold.sigma),
        "edge": None if reason else float(threshold.edge),
        "noLaw": reason,
        "noiseFit": None if reason else noise_distance(nonzero_shape or shape).fit,
        "live": [int(length) for length in nonzero_shape or shape],
        "entries": None,
        "spectrum": None,
        "map": map,
        "compare": None,
        "twin": None if twin is None else int(twin.entries.rank),
        "axes": {"rows": "outputs", "columns": "inputs", "kernel": []},
        "direction": None,
        "alone": {"kept": [], "dropped": []},
        **(about or {}),
    }
    if twin is not None:
        arrays |= {"twinS": twin.s, "twinTuned": twin.entries.tuned}
        arrays |= {"twinRepaired": twin.entries.repaired, "twinDiscarded": twin.entries.discarded}
        if twin.against is not None:
            arrays |= {"twinRepairedA": twin.against.repaired, "twinDiscardedA": twin.against.discarded}
            arrays["twinBetween"] = twin.between
    if compare is not None:
        header["compare"] = {**compare, "a": None, "b": None}
    if compare is not None and compared is not None:
        for name in "ab":
            side, of = getattr(compared, name), name.upper()
            header["compare"][name] = {
                "tau": side.tau,
                "rank": side.rank,
                "energy": side.energy,
                "fits": side.fits,
                "missing": side.missing,
            }
            arrays |= {f"repaired{of}": side.repaired, f"discarded{of}": side.discarded}
            arrays |= {} if side.gain is None else {f"gain{of}": side.gain}
            arrays |= {} if side.directions is None else {f"directions{of}": side.directions}
        arrays["between"] = compared.between
    if entries is not None:
        rows, columns = entries.window.spans(entries.shape)
        header["entries"] = {"rank": int(entries.rank), "rows": rows, "columns": columns} | _scale(entries.scale)
        header["entries"]["pooling"] = entries.window.pooling
        if entries.exact is not None:
            arrays |= dict(zip(("tunedExact", "repairedExact"), entries.exact, strict=True))
        arrays |= {"tuned": entries.tuned, "repaired": entries.repaired, "discarded": entries.discarded}
        arrays["entryValues"] = entries.scale.decode()
    if spectrum is not None:
        header["spectrum"] = _scale(spectrum.scale) | {"exact": spectrum.exact}
        arrays |= {"directions": spectrum.directions, "spectrumValues": spectrum.scale.decode()}
    return pack(header, arrays)


def matrix_axes(shape: Sequence[int], stacked: bool) -> dict[str, Any]:
    """Return what rows and columns of a weight's matrix are called, from the shape it is stored in.

    Outputs run down, inputs to the right; a column of a convolution is an input and a place in its kernel.
    """
    dims = [int(length) for length in shape if length != 1]
    if stacked or len(dims) < 3:
        return {"rows": "outputs", "columns": "inputs", "kernel": []}
    names = {3: "in k", 4: "in kh kw"}.get(len(dims), "in and kernel")
    sizes = " × ".join(map(str, dims[1:]))
    return {"rows": "out", "columns": f"{names} ({sizes})", "kernel": dims[1:]}


def law_missing(threshold: Threshold) -> str:
    """Return why the MP-fit of a delta is undefined, empty where it is defined."""
    if threshold.degenerate or not (threshold.sigma > 0 and math.isfinite(threshold.sigma)):
        return threshold.warnings[0] if threshold.warnings else "the median singular value measures no noise"
    return ""


def _scale(scale: Scale) -> dict[str, Any]:
    """Return the colour bar of one figure row."""
    return {"kind": scale.kind, "ticks": [[position, label] for position, label in scale.ticks()]}
