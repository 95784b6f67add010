"""The repair plan: what to do with a pair, as plain values that app, command line and output share."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dgviz.checkpoint import PairedTensor, TensorInfo
from dgviz.errors import ExportError, MethodError
from dgviz.files import json_number
from dgviz.repair.methods import Method, find_method
from dgviz.rmt.shrinkage import find_shrinker
from dgviz.rmt.threshold import find_rule
from dgviz.words import exact_number

OUTPUT_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class RepairPlan:
    """What to do with a pair: the one description that app, command line and output share.

    Attributes
    ----------
    rule : str
        Threshold rule, a key of `dgviz.rmt.threshold.RULES`.
    params : Mapping[str, float]
        The rule's parameters.
    include, exclude : str or None
        Regular expressions on tensor names; only included and not excluded tensors are changed.
    dtype : str
        ``"auto"`` for the tuned tensor's dtype, or the dtype of every floating tensor of the output.
    method : str
        The repair method, a key of `METHODS`. Rule and shrinker say nothing to one that is not made
        from DG-Hard's threshold.
    method_params : Mapping[str, float]
        The method's parameters.
    shrinker : str
        What becomes of the singular values that the rule keeps, a key of `dgviz.rmt.shrinkage.SHRINKERS`.
    """

    rule: str = "dg_hard"
    params: Mapping[str, float] = field(default_factory=dict)
    include: str | None = None
    exclude: str | None = None
    dtype: str = "auto"
    method: str = "dg_hard"
    method_params: Mapping[str, float] = field(default_factory=dict)
    shrinker: str = "hard"

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", find_rule(self.rule).checked(self.params))
        if self.dtype not in OUTPUT_DTYPES:
            raise ExportError(f"no output dtype {self.dtype!r}; choose one of {', '.join(OUTPUT_DTYPES)}")
        object.__setattr__(self, "method_params", find_method(self.method).checked(self.method_params))
        find_shrinker(self.shrinker)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; infinity becomes the string ``"inf"``."""
        return json_number(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RepairPlan":
        """Return the plan that `to_json` described.

        Parameters
        ----------
        values : mapping
            The JSON object.
        """
        return cls(**values)

    @property
    def label(self) -> str:
        """What tells this plan from others of the pair, such as ``ties:density=0.5``; `read_plan` reads it back."""
        parts = [self.method]
        parts += [f"{name}={exact_number(value)}" for name, value in self.recipe.changed(self.method_params).items()]
        if self.recipe.thresholded:
            parts += [f"rule={self.rule}"] if self.rule != "dg_hard" else []
            changed = find_rule(self.rule).changed(self.params)
            parts += [f"{name}={exact_number(value)}" for name, value in changed.items()]
            parts += [f"shrinker={self.shrinker}"] if self.shrinker != "hard" else []
        return ":".join(parts)

    @property
    def arguments(self) -> dict[str, Any]:
        """What a command says of this plan, by the names of its arguments; see `dgviz.command.Command`."""
        return {
            "rule": self.rule,
            "rule_param": find_rule(self.rule).changed(self.params),
            "method": self.method,
            "param": self.recipe.changed(self.method_params),
            "shrinker": self.shrinker,
            "include": self.include,
            "exclude": self.exclude,
            "dtype": self.dtype,
        }

    @cached_property
    def recipe(self) -> Method:
        """The method, from the registry."""
        return find_method(self.method)

    def selects(self, name: str) -> bool:
        """Return whether `include` and `exclude` leave a tensor to be changed.

        Parameters
        ----------
        name : str
            The tensor.
        """
        if self.exclude and re.search(self.exclude, name):
            return False
        return not self.include or re.search(self.include, name) is not None

    def changes(self, paired: PairedTensor) -> bool:
        """Return whether the method makes something else of a tensor than tuned's values.

        Parameters
        ----------
        paired : PairedTensor
            Its two sides and its fate: ``"repair"`` is changed by every method, ``"keep"`` by those that act on
            every tensor, where both sides have it in one shape and floating point and the selection leaves it.
        """
        base, tuned = paired.base, paired.tuned
        if paired.action != "keep" or not self.recipe.every_tensor or None in (base, tuned):
            return paired.action == "repair"
        floating = all(side.is_floating and not side.dtype.startswith("float8") for side in (base, tuned))
        # A tied head that is kept goes with its embedding, whose own name the selection has left out.
        tied = paired.reason.startswith("Tied to ")
        return floating and base.shape == tuned.shape and base != tuned and not tied and self.selects(paired.name)

    def output_dtype(self, info: TensorInfo) -> str:
        """Return the dtype a tensor is written in.

        Parameters
        ----------
        info : TensorInfo
            The tuned tensor; integers and booleans always keep their own.
        """
        return self.dtype if self.dtype != "auto" and info.is_floating else info.dtype


def read_plan(text: str, **common: Any) -> RepairPlan:
    """Return the plan that a short text names.

    Parameters
    ----------
    text : str
        A method and its settings with colons between: ``wise_ft:alpha=0.5``,
        ``dg_hard:rule=energy:fraction=0.8:shrinker=frobenius``. What is no parameter of the method is the rule's.
    **common : Any
        Fields of `RepairPlan` that the text does not name.

    Raises
    ------
    MethodError, ThresholdError
        If there is no such method, rule, shrinker or parameter, or a value is out of range.
    """
    name, *settings = text.strip().split(":")
    recipe = find_method(name)
    given: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise MethodError(f"a method's settings are NAME=VALUE with colons between; got {setting!r} in {text!r}")
        given[key] = value
    known = {parameter.name for parameter in recipe.parameters}
    own = {key: value for key, value in given.items() if key in known}
    rest = {key: value for key, value in given.items() if key not in known}
    if not recipe.thresholded:
        return RepairPlan(method=name, method_params=own | rest, **common)  # says which of the rest is unknown
    words = {"rule": rest.pop("rule", "dg_hard"), "shrinker": rest.pop("shrinker", "hard")}
    return RepairPlan(params=rest, method=name, method_params=own, **words, **common)
