"""The models between base and tuned: base's weights and, of every update, each part times a scale of its own."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.func import functional_call
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from dgviz.checkpoint import CheckpointPair
from dgviz.errors import MethodError
from dgviz.export.logits import build_model
from dgviz.export.reload import find_model_class
from dgviz.fit.samples import Ask
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.svd.decompose import resolve_device


@dataclass(frozen=True)
class Part:
    """What one scale multiplies.

    Attributes
    ----------
    tensor : str
        Its name in the checkpoints.
    which : str
        ``"alpha"`` for all of its update, ``"above"`` for what DG-Hard keeps of it, ``"below"`` for what that drops.
    """

    tensor: str
    which: str


class Blend:
    """A pair as one model whose update can be scaled part by part.

    Everything is float32. Base and every part of the update are held once, and while the model is asked its weights
    are once more: three models, four where matrices are split, and what one batch needs.

    Parameters
    ----------
    pair : CheckpointPair
        Both sides, causal or masked language models of transformers.
    split : bool
        Whether a matrix has two scales, above and below DG-Hard's tau; else every tensor has one.
    device : str
        See `resolve_device`.

    Raises
    ------
    MethodError
        If it is no such model, or a weight that differs is no tensor of the checkpoints.
    """

    def __init__(self, pair: CheckpointPair, split: bool = False, device: str = "auto") -> None:
        self.pair, self.device = pair, resolve_device(device)
        source = (pair.base if pair.tuned.is_adapter else pair.tuned).path
        kind, reason = find_model_class(source)
        if kind is None:
            raise MethodError(f"{source} cannot be run, so nothing can be sampled from it: {reason}")
        self.masked = kind.__name__ in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()
        if not self.masked and kind.__name__ not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
            raise MethodError(f"{kind.__name__} is neither a causal nor a masked language model: it writes no texts")
        build = lambda plan: build_model(pair, plan, kind, torch.float32, self.device).to(self.device)  # noqa: E731
        self.model = build(_scaled(0.0)).requires_grad_(False)
        self.parts: list[Part] = []
        self._updates: dict[str, list[tuple[int, torch.Tensor]]] = {}
        self._take(build(_scaled(1.0)), build(RepairPlan(dtype="float32")) if split else None)

    def _take(self, tuned: Any, kept: Any | None) -> None:
        """Take the parts of every weight's update."""
        changed = {tensor.name: tensor for tensor in self.pair.tensors if _scaled(0.0).changes(tensor)}
        weights, repaired = (dict(model.named_parameters()) if model else {} for model in (tuned, kept))
        names = self._names()
        for key, base in self.model.named_parameters():
            delta = weights[key].detach() - base
            if not bool(delta.any()):
                continue
            name = next((name for name in names[id(base)] if name in changed), None)
            if name is None:
                raise MethodError(
                    f"{key} of {type(self.model).__name__} differs between the sides and is no single tensor of "
                    f"{self.pair.tuned.path}, so no plan can scale it"
                )
            parts = {"alpha": delta}
            if key in repaired and changed[name].action == "repair":
                above = repaired[key].detach() - base
                if bool(above.any()) and not torch.equal(above, delta):
                    parts = {"above": above, "below": delta - above}
            self._updates[key] = list(enumerate(parts.values(), len(self.parts)))
            self.parts += [Part(name, which) for which in parts]

    def _names(self) -> dict[int, list[str]]:
        """Return what checkpoints may call every weight: with its prefix and without, by all names of tied ones."""
        prefix, names = f"{self.model.base_model_prefix}.", {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).extend((name, name.removeprefix(prefix)))
        return names

    def at(self, scales: torch.Tensor) -> Ask:
        """Return the model at one scale a part; gradients flow to the scales."""
        weights = {}
        for name, parts in self._updates.items():
            weights[name] = self.model.get_parameter(name)
            for place, update in parts:
                weights[name] = weights[name] + scales[place] * update
        return partial(self._ask, weights)

    def _ask(self, weights: dict[str, torch.Tensor], **inputs: Any) -> Any:
        placed = {name: value.to(self.device) if torch.is_tensor(value) else value for name, value in inputs.items()}
        return functional_call(self.model, weights, kwargs=placed)

    def scales(self, value: float) -> torch.Tensor:
        """Return the same scale for every part: 0 is base, 1 is tuned."""
        return torch.full((len(self.parts),), value, device=self.device)


def _scaled(alpha: float) -> RepairPlan:
    return RepairPlan(method="wise_ft", method_params={"alpha": alpha}, dtype="float32")
