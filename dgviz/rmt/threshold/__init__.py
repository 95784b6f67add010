"""Threshold rules: from the singular values of a delta to the number of directions kept.

A rule is an object in `RULES`; pages, command line and documentation read the registry. Every rule keeps the singular
values *strictly above* tau, and every result carries sigma and the bulk edge as estimated from the median singular
value, so that rules can be compared on one spectrum. Rules take the nonzero block of a spectrum
(`Spectrum.nonzero_s` and `nonzero_shape`).
"""

from dgviz.rmt.threshold.rule import DEGENERATE_MEDIAN, Parameter, Rule, Threshold, checked_parameters, having
from dgviz.rmt.threshold.rules import RULES, find_rule

__all__ = [
    "DEGENERATE_MEDIAN",
    "RULES",
    "Parameter",
    "Rule",
    "Threshold",
    "checked_parameters",
    "find_rule",
    "having",
]
