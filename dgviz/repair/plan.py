"""The repair plan: what to do with a pair, as plain values that app, command line and output share."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from dgviz.checkpoint import PairedTensor, TensorInfo
from dgviz.checkpoint.selection import Selection
from dgviz.errors import DgvizError, ExportError, MethodError, PlanError
from dgviz.files import json_number
from dgviz.opening import read_named
from dgviz.repair.methods import METHODS, Method, find_method
from dgviz.repair.methods.method import Delta, Reshaped
from dgviz.repair.overrides import SIDES, Override
from dgviz.rmt.directions import Directions
from dgviz.rmt.shrinkage import find_shrinker
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import find_rule
from dgviz.spectra.weight import Weight
from dgviz.words import exact_number

MAX_PLAN_BYTES = 100_000_000
"""An export's report, which holds its plan, has a row for every tensor: some megabytes."""

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
    overrides : tuple of Override
        What some tensors get instead, as values or as text; of those that select a tensor the last one counts.
    keep : str
        ``"tuned"`` or ``"base"``: the side whose values are taken in place of a repair; empty for none.
    keep_directions, drop_directions : str
        Numbers of single directions (``3-5+130``, the first being 1) that are kept or dropped whatever the rule says;
        an override's own, of one matrix.
    """

    rule: str = "dg_hard"
    params: Mapping[str, float] = field(default_factory=dict)
    include: str | None = None
    exclude: str | None = None
    dtype: str = "auto"
    method: str = "dg_hard"
    method_params: Mapping[str, float] = field(default_factory=dict)
    shrinker: str = "hard"
    overrides: Sequence[Override] = ()
    keep: str = ""
    keep_directions: str = ""
    drop_directions: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", find_rule(self.rule).checked(self.params))
        if self.dtype not in OUTPUT_DTYPES:
            raise ExportError(f"no output dtype {self.dtype!r}; choose one of {', '.join(OUTPUT_DTYPES)}")
        object.__setattr__(self, "method_params", find_method(self.method).checked(self.method_params))
        find_shrinker(self.shrinker)
        if self.keep not in ("", *SIDES):
            raise PlanError(f"a plan keeps {' or '.join(SIDES)}, or neither; got {self.keep!r}")
        parsed = (Override.parse(item) if isinstance(item, str) else item for item in self.overrides)
        object.__setattr__(self, "overrides", tuple(parsed))
        if self.directions and not self.recipe.has_factors:
            known = ", ".join(method.name for method in METHODS.values() if method.has_factors)
            raise PlanError(f"{self.method} keeps no single directions; choose one of {known}")
        _ = self._applied

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; infinity becomes the string ``"inf"``."""
        return json_number({**dataclasses.asdict(self.default), "overrides": list(map(str, self.overrides))})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RepairPlan":
        """Return the plan that `to_json` described.

        Parameters
        ----------
        values : mapping
            The JSON object.
        """
        unknown = values.keys() - {known.name for known in dataclasses.fields(cls)}
        if unknown:
            raise PlanError(f"a repair plan has no {', '.join(sorted(unknown))}; it has {', '.join(_fields(cls))}")
        return cls(**values)

    @cached_property
    def default(self) -> "RepairPlan":
        """What a tensor gets that no override selects."""
        return dataclasses.replace(self, overrides=()) if self.overrides else self

    @cached_property
    def _applied(self) -> tuple["RepairPlan", ...]:
        return tuple(override.applied(self.default) for override in self.overrides)

    def at(self, tensor: PairedTensor, index: int | None = None) -> "RepairPlan":
        """Return what one matrix of a tensor gets, a plan without overrides.

        Parameters
        ----------
        tensor : PairedTensor
            The tensor.
        index : int, optional
            Which matrix of a stack; None for a tensor as a whole.
        """
        number = self._deciding(tensor, index)
        return self.default if number is None else self._applied[number]

    def rule_of(self, weight: Weight) -> tuple[str, Mapping[str, float], Directions]:
        """Return the rule of one weight, its parameters, and the single directions that it does not decide.

        Parameters
        ----------
        weight : Weight
            The matrix.
        """
        own = self.at(weight.tensor, weight.index)
        return own.rule, own.params, own.directions

    def override_of(self, tensor: PairedTensor, index: int | None = None) -> Override | None:
        """Return the override that decides what one matrix of a tensor gets; None where the default does.

        Parameters
        ----------
        tensor, index
            As for `at`.
        """
        number = self._deciding(tensor, index)
        return None if number is None else self.overrides[number]

    def _deciding(self, tensor: PairedTensor, index: int | None) -> int | None:
        numbers = reversed(range(len(self.overrides)))
        return next((number for number in numbers if self.overrides[number].selector.covers(tensor, index)), None)

    def each(self, tensor: PairedTensor) -> list["RepairPlan"]:
        """Return what every matrix of a tensor gets: one plan where it is the same for all.

        Parameters
        ----------
        tensor : PairedTensor
            The tensor.
        """
        indices = {override.selector.index for override in self.overrides if override.selector.finds(tensor)}
        layout = tensor.layout if indices - {None} else None
        if layout is None or layout.stack is None:
            return [self.at(tensor)]
        plans = [self.at(tensor, index) for index in range(layout.stack)]
        return plans[:1] if all(plan is plans[0] for plan in plans) else plans

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
    def title(self) -> str:
        """What a page calls this plan, such as ``WiSE-FT, alpha 0.5``: a strength is said at its default as well."""
        if self.keep:
            return f"{self.keep}'s values"
        changed, usual = self.recipe.changed(self.method_params), self.method == "dg_hard"
        strong = set() if usual else {strength.parameter for strength in self.recipe.strengths}
        said = {name: value for name, value in self.method_params.items() if name in strong | changed.keys()}
        settings = [f"{name} {value:.4g}" for name, value in said.items()]
        if usual:
            return ", ".join([self.rule_title, *settings])
        return ", ".join([self.recipe.title, *settings, *[self.rule_title] * self.recipe.thresholded])

    @property
    def rule_title(self) -> str:
        """What a page calls the rule, its settings and the shrinker."""
        rule = find_rule(self.rule)
        settings = [f"{name} {value:.4g}" for name, value in rule.changed(self.params).items()]
        return ", ".join([rule.title, *settings, *[f"{self.shrinker} shrinker"] * (self.shrinker != "hard")])

    @property
    def is_threshold(self) -> bool:
        """Whether it is a threshold alone: every direction of every tensor is kept as it is, or dropped."""
        return replace(self, rule="dg_hard", params={}) == RepairPlan()

    @property
    def rule_arguments(self) -> dict[str, Any]:
        """What a command says of the rule, also where the method takes none: spectra are cut by it still."""
        return {"rule": self.rule, "rule_param": find_rule(self.rule).changed(self.params)}

    @property
    def takes_shrinker(self) -> bool:
        """Whether the shrinker decides anything: the method, or that of an override, is made from a threshold."""
        return any(plan.recipe.thresholded for plan in (self.default, *self._applied))

    @property
    def arguments(self) -> dict[str, Any]:
        """What a command says of this plan, by the names of its arguments; see `dgviz.command.Command`."""
        return {
            **(self.rule_arguments if self.recipe.thresholded else {}),
            "method": self.method,
            "param": self.recipe.changed(self.method_params),
            **({"shrinker": self.shrinker} if self.takes_shrinker else {}),
            "include": self.include,
            "exclude": self.exclude,
            "dtype": self.dtype,
            "override": tuple(map(str, self.overrides)),
        }

    @cached_property
    def directions(self) -> Directions:
        """The single directions."""
        return Directions.parse(self.keep_directions, self.drop_directions)

    @cached_property
    def recipe(self) -> Method:
        """The method, from the registry."""
        return find_method(self.method)

    def reshape(
        self, spectrum: Spectrum, facts: Any = None, tensor: str = "", delta: Delta | None = None
    ) -> Reshaped:
        """Return what the plan's own method makes of the singular values of one matrix.

        Parameters
        ----------
        spectrum : Spectrum
            Of the matrix's update.
        facts : any
            What the method takes from the whole model.
        tensor : str
            The tensor's name.
        delta : callable, optional
            Fetches the update, for rules that need it.
        """
        if self.keep:
            return Reshaped.of_side(spectrum, self.keep)
        return self.recipe.reshape(self, spectrum, facts, tensor, delta)

    def selects(self, name: str) -> bool:
        """Return whether `include` and `exclude` leave a tensor to be changed.

        Parameters
        ----------
        name : str
            The tensor.
        """
        return not Selection(self.include or "", self.exclude or "").drops(name)

    def changes(self, paired: PairedTensor) -> bool:
        """Return whether the method makes something else of a tensor than tuned's values.

        Parameters
        ----------
        paired : PairedTensor
            Its two sides and its fate: ``"repair"`` is changed by every method, ``"keep"`` by those that act on
            every tensor, where both sides have it in one shape and floating point and the selection leaves it.
        """
        return any(plan._makes_other(paired) for plan in self.each(paired))

    def inputs(self, paired: PairedTensor) -> dict[str, TensorInfo]:
        """Return the inputs that decide what one tensor becomes, by side; tuned alone where it is copied."""
        return {"base": paired.base, "tuned": paired.tuned} if self.changes(paired) else {"tuned": paired.tuned}

    def _makes_other(self, paired: PairedTensor) -> bool:
        """Return the same of a plan without overrides."""
        base, tuned = paired.base, paired.tuned
        if self.keep:
            alike = None not in (base, tuned) and (paired.action == "repair" or _exchangeable(base, tuned))
            return self.keep == "base" and alike
        if paired.action != "keep" or not self.recipe.every_tensor or None in (base, tuned):
            return paired.action == "repair"
        floating = all(side.is_floating and not side.dtype.startswith("float8") for side in (base, tuned))
        if paired.cause in ("unrelated", "permuted"):
            return False  # there is no update that a method could weigh
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


def _exchangeable(base: TensorInfo, tuned: TensorInfo) -> bool:
    """Return whether one side's values can stand in the other's place."""
    floating = all(side.is_floating and not side.dtype.startswith("float8") for side in (base, tuned))
    return base.shape == tuned.shape and (base.dtype == tuned.dtype or floating)


def _fields(kind: type) -> list[str]:
    return [known.name for known in dataclasses.fields(kind)]


def read_plan_file(path: str | Path) -> RepairPlan:
    """Return the plan that a file holds: one of its own, or that of an export's ``dgviz.json``.

    Parameters
    ----------
    path : str or Path
        The JSON file.

    Raises
    ------
    PlanError
        If it cannot be read or holds no plan.
    """
    try:
        data = read_named(Path(path).expanduser(), MAX_PLAN_BYTES)
    except (OSError, RuntimeError) as error:
        raise PlanError(f"the plan {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse_plan(data, str(path))


def parse_plan(data: bytes, path: str) -> RepairPlan:
    """Return the plan that the bytes of a file hold, as `read_plan_file` does; `path` is what errors call it."""
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise PlanError(
            f"the plan {path} is not JSON ({error}); give a plan's file or an export's dgviz.json"
        ) from None
    if isinstance(values, dict) and isinstance(values.get("plan"), dict):
        values = values["plan"]
    if not isinstance(values, dict):
        raise PlanError(f"the plan {path} holds no JSON object; give a plan's file or an export's dgviz.json")
    try:
        return RepairPlan.from_json(values)
    except (TypeError, AttributeError) as error:
        raise PlanError(f"the plan {path} has a value of the wrong kind: {error}") from None
    except DgvizError as error:
        raise type(error)(f"the plan {path}: {error}") from None


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
