"""Overrides: what some tensors of a plan get in place of its default, as people type it and a file keeps it.

``SELECTION: SETTING=VALUE, ...``, as in ``layers=3-7: factor=0.47`` or ``lm_head: keep=tuned``. What selects is told
by `dgviz.checkpoint.selector`. What is set is ``keep`` (``tuned`` or ``base``), or else a method and a threshold:
``tau`` and ``rank`` give it, ``factor`` multiplies the rule's, ``rule``, ``method`` and ``shrinker`` name others, and
what is left are their parameters. ``keep_directions`` and ``drop_directions`` name single directions of one matrix
that the threshold does not decide.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dgviz.checkpoint import CheckpointPair, PairedTensor
from dgviz.checkpoint.selector import Selector
from dgviz.errors import PlanError
from dgviz.repair.methods import find_method
from dgviz.rmt.threshold import find_rule

if TYPE_CHECKING:
    from dgviz.repair.plan import RepairPlan

SIDES = ("tuned", "base")
_SINGLE = ("keep_directions", "drop_directions")
_EXAMPLE = "as in 'layers=3-7: factor=0.47' or 'lm_head: keep=tuned'"


@dataclass(frozen=True)
class Override:
    """What one selection of tensors gets.

    Attributes
    ----------
    selector : Selector
        Which tensors.
    settings : mapping of str to str
        What is set, as typed.

    Raises
    ------
    PlanError
        If a setting is unknown, excludes another or has a value that it cannot have.
    """

    selector: Selector
    settings: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the override that a text describes.

        Parameters
        ----------
        text : str
            The selection, a colon and a space, and the settings with commas between. The last such colon counts.

        Raises
        ------
        PlanError, PairError
            If it is no such text.
        """
        selection, colon, rest = text.rpartition(": ")
        settings: dict[str, str] = {}
        for part in rest.split(",") if colon else ():
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not (name and equals and value):
                raise PlanError(f"the override {text!r} sets {part.strip()!r}, which is not NAME=VALUE, {_EXAMPLE}")
            if name in settings:
                raise PlanError(f"the override {text!r} sets {name} twice, to {settings[name]} and to {value}")
            settings[name] = value
        if not settings:
            raise PlanError(f"the override {text!r} is not SELECTION: NAME=VALUE, {_EXAMPLE}")
        return cls(Selector(selection.strip()), settings)

    def __str__(self) -> str:
        """Return it as one types it."""
        return f"{self.selector.text}: {', '.join(f'{name}={value}' for name, value in self.settings.items())}"

    def applied(self, plan: "RepairPlan", everywhere: bool = False) -> "RepairPlan":
        """Return what the selected tensors get: the default plan, changed.

        Parameters
        ----------
        plan : RepairPlan
            The default. Where its method has no threshold and one is set here, DG-Hard takes its place.
        everywhere : bool
            Whether it is to stand for the whole model, where methods may take something from all of it.

        Raises
        ------
        PlanError, MethodError, ThresholdError
            If the settings do not go together, or name what there is not.
        """
        given = dict(self.settings)
        if "keep" in given:
            side = given.pop("keep")
            if side not in SIDES or given:
                what = f"with {', '.join(given)}" if given else f"{side!r}"
                raise PlanError(f"the override {str(self)!r}: keep is tuned or base and stands alone; got it {what}")
            return dataclasses.replace(plan, keep=side)
        single = {name: given.pop(name) for name in _SINGLE if name in given}
        if single and not given and plan.recipe.has_factors:
            return dataclasses.replace(plan, **single)
        if single and not given:
            raise PlanError(
                f"the override {str(self)!r}: {plan.method}, the plan's method, keeps no single directions; say what "
                "else the weight gets, as in rule=dg_hard, keep_directions=7"
            )
        changes = self._method(plan, given, everywhere) | single
        if not find_method(changes["method"]).thresholded:
            changes["method_params"] |= given  # says which of the rest is unknown
            return dataclasses.replace(plan, **changes)
        if "shrinker" in given:
            changes["shrinker"] = given.pop("shrinker")
        return dataclasses.replace(plan, **changes, **self._threshold(plan, given))

    def _method(self, plan: "RepairPlan", given: dict[str, str], everywhere: bool) -> dict[str, Any]:
        """Take the method and its parameters out of the settings."""
        if "method" in given:
            recipe = find_method(given.pop("method"))
            if recipe.prepares and not everywhere:
                raise PlanError(
                    f"the override {str(self)!r}: {recipe.name} takes something from the whole model before it "
                    "changes the first tensor, so it can only be the plan's own method"
                )
            own = {parameter.name for parameter in recipe.parameters} & given.keys()
            return {"method": recipe.name, "method_params": {name: given.pop(name) for name in own}}
        if plan.recipe.thresholded and (everywhere or not plan.recipe.prepares):
            return {"method": plan.method, "method_params": dict(plan.method_params)}
        return {"method": "dg_hard", "method_params": {}}

    def _threshold(self, plan: "RepairPlan", given: dict[str, str]) -> dict[str, Any]:
        """Take the threshold out of the settings."""
        chosen = [name for name in ("rule", "tau", "rank") if name in given]
        if len(chosen) > 1 and chosen != ["rule", "rank"] and chosen != ["rule", "tau"]:
            raise PlanError(f"the override {str(self)!r} sets both {' and '.join(chosen)}: one of them decides tau")
        if "rule" in given:
            name, params = given.pop("rule"), {}
        elif chosen:
            name, params = {"tau": "manual", "rank": "fixed_rank"}[chosen[0]], {}
        else:
            name, params = (plan.rule, dict(plan.params)) if plan.recipe.thresholded else ("dg_hard", {})
        rule = find_rule(name)
        if "factor" in given:
            if all(parameter.name != "scale" for parameter in rule.parameters):
                raise PlanError(f"the override {str(self)!r}: rule {name} has no factor on its tau")
            given["scale"] = given.pop("factor")
        return {"rule": name, "params": rule.checked(params | given)}


def refuse_idle(plan: "RepairPlan", pair: CheckpointPair) -> None:
    """Refuse overrides that select nothing of a pair, or something that cannot be what they say.

    Raises
    ------
    PlanError
        With names like the one that nothing is called, or the reason why a tensor is not changed.
    """
    if plan.default.directions:
        raise PlanError(
            f"the plan's default names single directions ({plan.keep_directions or plan.drop_directions}), which are "
            "those of one matrix: give them in an override, as in 'name=NAME: drop_directions=3'"
        )
    for override in plan.overrides:
        selector, own = override.selector, override.applied(plan.default)
        found = [tensor for tensor in pair.tensors if selector.finds(tensor)]
        if not found:
            near = selector.near(pair.tensors)
            hint = f"; there are {', '.join(near)}" if near else ""
            raise PlanError(f"the override {str(override)!r} selects no tensor of {pair.tuned.path}{hint}")
        if selector.index is not None:
            _refuse_index(plan, override, found)
        if own.directions:
            _refuse_directions(override, own, found)
        if own.keep != "tuned" and not any(own.changes(tensor) for tensor in found):
            reason = f"{found[0].name} is not changed by it: {found[0].reason}"
            raise PlanError(f"the override {str(override)!r} changes nothing; {reason}")


def _refuse_directions(override: Override, own: "RepairPlan", found: list[PairedTensor]) -> None:
    """Refuse single directions of more than one matrix, and those that a matrix has not."""
    layouts = [tensor.layout for tensor in found if own.changes(tensor)]
    count = sum(1 if override.selector.index is not None else layout.stack or 1 for layout in layouts)
    if count > 1:
        raise PlanError(
            f"the override {str(override)!r} names single directions, which are those of one matrix, and selects "
            f"{count}: select one, as in name=NAME or name=NAME[3]"
        )
    for layout in layouts:
        if own.directions.last > min(layout.rows, layout.cols):
            raise PlanError(
                f"the override {str(override)!r} names direction {own.directions.last}; {found[0].name} is "
                f"{layout.rows} x {layout.cols} and has {min(layout.rows, layout.cols)}"
            )


def _refuse_index(plan: "RepairPlan", override: Override, found: list[PairedTensor]) -> None:
    """Refuse an index that no tensor has, and methods that go through the whole of a stack beside one matrix."""
    layouts = {tensor: tensor.layout for tensor in found}
    stacks = {tensor: layout.stack for tensor, layout in layouts.items() if layout is not None and layout.stack}
    if not any(override.selector.index < count for count in stacks.values()):
        first = found[0].name
        has = "; ".join(f"{tensor.name} has {count} matrices" for tensor, count in stacks.items())
        raise PlanError(f"the override {str(override)!r} fits no stack: {has or f'{first} is none'}")
    for tensor in stacks:
        for own in plan.each(tensor):
            if not own.keep and not own.recipe.by_matrix:
                raise PlanError(
                    f"the override {str(override)!r}: {own.method} goes through all entries of {tensor.name}, so its "
                    "matrices cannot be treated apart; override the whole tensor"
                )
