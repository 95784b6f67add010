"""Scales of a pair's update fitted to what base and tuned say of texts that they write themselves."""

from dgviz.fit.run import FitSettings, iter_fit

__all__ = ["FitSettings", "iter_fit"]
