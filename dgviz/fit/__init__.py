"""Scales of a pair's update fitted to what base and tuned say of texts that they write themselves."""

from dgviz.fit.blend import Blend
from dgviz.fit.path import Objective, Point, choose_point, iter_path
from dgviz.fit.run import FitSettings, iter_fit
from dgviz.fit.samples import Samples, draw_gaps, draw_texts, hash_samples

__all__ = [
    "Blend",
    "FitSettings",
    "Objective",
    "Point",
    "Samples",
    "choose_point",
    "draw_gaps",
    "draw_texts",
    "hash_samples",
    "iter_fit",
    "iter_path",
]
