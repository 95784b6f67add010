"""The weights of a model in groups: all of them, by class, by third of the depth, and layer by layer."""

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from dgviz.analysis.model_spectra import Assessment
from dgviz.checkpoint.module_path import CLASSES, ModulePath, layer_order, layer_positions

WHOLE = "all"
"""Name of the group that holds every weight."""

THIRDS = ("first third", "middle third", "last third", "outside the layers")
"""Parts of the depth, in order."""


_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


def collect(pairs: Iterable[tuple[_Key, _Value]], order: Iterable[_Key] = ()) -> dict[_Key, list[_Value]]:
    """Return values by their keys, those of `order` first and without the keys that have none."""
    found: dict[_Key, list[_Value]] = {key: [] for key in order}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: values for key, values in found.items() if values}


def thirds_of(paths: Sequence[ModulePath]) -> list[str]:
    """Return which third of its tower each weight lies in, one of `THIRDS`."""
    positions = layer_positions(paths)
    depths: dict[str, set[int]] = {}
    for path in paths:
        if path.layer:
            depths.setdefault(path.tower, set()).add(positions[path.tower, path.layer])
    ranks = {(tower, depth): i for tower, own in depths.items() for i, depth in enumerate(sorted(own))}
    return [
        THIRDS[3 * ranks[path.tower, positions[path.tower, path.layer]] // len(depths[path.tower])]
        if path.layer
        else THIRDS[3]
        for path in paths
    ]


def groups_of(rows: Sequence[Assessment]) -> dict[str, list[Assessment]]:
    """Return all weights, those of every class, and those of every third of the depth, by name; empty ones left out.

    Parameters
    ----------
    rows : sequence of Assessment
        Every matrix of a model once.
    """
    paths = [row.weight.module_path for row in rows]
    classes = collect(zip((path.kind for path in paths), rows, strict=True), CLASSES)
    return {WHOLE: list(rows)} | classes | collect(zip(thirds_of(paths), rows, strict=True), THIRDS)


def layers_of(rows: Iterable[Assessment], tower: str) -> dict[tuple[int, ...], list[Assessment]]:
    """Return the weights of every layer of a tower, in order of depth.

    Parameters
    ----------
    rows : iterable of Assessment
        Matrices of a model.
    tower : str
        `ModulePath.tower`.
    """
    placed = ((row.weight.module_path, row) for row in rows)
    found = collect((path.layer, row) for path, row in placed if path.tower == tower and path.layer)
    return {layer: found[layer] for layer in sorted(found, key=layer_order)}
