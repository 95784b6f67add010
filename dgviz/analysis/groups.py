"""The weights of a model in groups: all of them, by class, by third of the depth, and layer by layer."""

from collections.abc import Iterable, Sequence

from dgviz.analysis.model_spectra import Assessment
from dgviz.checkpoint.module_path import CLASSES, ModulePath, layer_order, layer_positions

WHOLE = "all"
"""Name of the group that holds every weight."""

THIRDS = ("first third", "middle third", "last third", "outside the layers")
"""Parts of the depth, in order."""


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
    thirds = thirds_of([row.weight.module_path for row in rows])
    found: dict[str, list[Assessment]] = {WHOLE: list(rows)} | {name: [] for name in (*CLASSES, *THIRDS)}
    for row, third in zip(rows, thirds, strict=True):
        found[row.weight.module_path.kind].append(row)
        found[third].append(row)
    return {name: own for name, own in found.items() if own or name == WHOLE}


def layers_of(rows: Iterable[Assessment], tower: str) -> dict[tuple[int, ...], list[Assessment]]:
    """Return the weights of every layer of a tower, in order of depth.

    Parameters
    ----------
    rows : iterable of Assessment
        Matrices of a model.
    tower : str
        `ModulePath.tower`.
    """
    found: dict[tuple[int, ...], list[Assessment]] = {}
    for row in rows:
        if row.weight.module_path.tower == tower and row.weight.module_path.layer:
            found.setdefault(row.weight.module_path.layer, []).append(row)
    return {layer: found[layer] for layer in sorted(found, key=layer_order)}
