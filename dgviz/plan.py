"""The repair plan: what to do with a pair, as plain values that app, command line and output share."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dgviz.checkpoint import TensorInfo
from dgviz.errors import ExportError
from dgviz.threshold import find_rule

OUTPUT_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class RepairPlan:
    """What to do with a pair: the one description that app, command line and output share.

    Attributes
    ----------
    rule : str
        Threshold rule, a key of `dgviz.threshold.RULES`.
    params : Mapping[str, float]
        The rule's parameters.
    include, exclude : str or None
        Regular expressions on tensor names; only included and not excluded tensors are repaired.
    dtype : str
        ``"auto"`` for the tuned tensor's dtype, or the dtype of every floating tensor of the output.
    method : str
        The repair method; ``"dg_hard"`` keeps or drops whole singular directions.
    """

    rule: str = "dg_hard"
    params: Mapping[str, float] = field(default_factory=dict)
    include: str | None = None
    exclude: str | None = None
    dtype: str = "auto"
    method: str = "dg_hard"

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", find_rule(self.rule).checked(self.params))
        if self.dtype not in OUTPUT_DTYPES:
            raise ExportError(f"no output dtype {self.dtype!r}; choose one of {', '.join(OUTPUT_DTYPES)}")
        if self.method != "dg_hard":
            raise ExportError(f"no repair method {self.method!r}; there is dg_hard")

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; infinity becomes the string ``"inf"``."""
        return {**dataclasses.asdict(self), "params": {name: json_number(v) for name, v in self.params.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RepairPlan":
        """Return the plan that `to_json` described.

        Parameters
        ----------
        values : mapping
            The JSON object.
        """
        return cls(**values)

    def output_dtype(self, info: TensorInfo) -> str:
        """Return the dtype a tensor is written in.

        Parameters
        ----------
        info : TensorInfo
            The tuned tensor; integers and booleans always keep their own.
        """
        return self.dtype if self.dtype != "auto" and info.is_floating else info.dtype


def json_number(value: Any) -> Any:
    """Return a JSON-able value with infinities as the strings ``"inf"`` and ``"-inf"``, which no JSON number can be.

    Parameters
    ----------
    value : any
        Numbers, strings, lists, tuples, dicts and None.
    """
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, list | tuple):
        return [json_number(item) for item in value]
    if isinstance(value, dict):
        return {key: json_number(item) for key, item in value.items()}
    return value
