"""Which module of base's model a LoRA adapter must change for a tensor, and how its factors lie there.

The model is built from base's config without weights, and every parameter is matched with the stored tensors that
transformers loads into it. What has no such module is named with the reason, never left out silently.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dgviz.checkpoint import Checkpoint, CheckpointPair, TensorInfo, match_names
from dgviz.checkpoint.derived import FusedExperts
from dgviz.errors import ExportError


@dataclass(frozen=True)
class Piece:
    """Where one matrix of a stored tensor lies in a parameter of the model.

    Attributes
    ----------
    name : str
        The stored tensor, as the pair calls it.
    index : int
        Which matrix of it.
    expert : int
        Entry of the parameter's stack; 0 for a plain matrix.
    row, rows : int
        First row inside that entry and how many.
    """

    name: str
    index: int
    expert: int
    row: int
    rows: int


@dataclass(frozen=True)
class Target:
    """One parameter that an adapter can change.

    Attributes
    ----------
    module, parameter : str
        Where it is in the model.
    kind : str
        ``"linear"``, ``"conv1d"`` (stored input first), ``"embedding"`` or ``"parameter"`` (of a module that PEFT
        knows only by its parameter).
    shape : tuple of int
        Of the parameter: a matrix, or a stack of them.
    transposed : bool
        Whether the parameter is stored input first.
    pieces : tuple of Piece
        What it is made of, in order.
    """

    module: str
    parameter: str
    kind: str
    shape: tuple[int, ...]
    transposed: bool
    pieces: tuple[Piece, ...]

    @property
    def experts(self) -> int:
        """Length of the stack; 1 for a matrix."""
        return self.shape[0] if len(self.shape) == 3 else 1

    @property
    def exchanged(self) -> bool:
        """Whether left makes A and right makes B: stored input first, or an embedding."""
        return self.transposed or self.kind == "embedding"

    @property
    def name(self) -> str:
        """Name of the parameter in the model."""
        return f"{self.module}.{self.parameter}"


@dataclass(frozen=True)
class Targets:
    """All parameters an adapter can change, and why other tensors have none.

    Attributes
    ----------
    found : tuple of Target
        In the model's order.
    missing : mapping of str to str
        Tensor and reason.
    tied : str
        The head's name where base ties it to its embedding and the adapter changes both, or empty.
    """

    found: tuple[Target, ...]
    missing: Mapping[str, str]
    tied: str = ""


def build_model(config: Mapping[str, Any]) -> Any:
    """Return base's model with every parameter in place and none in memory: each is one number seen as a tensor."""
    import transformers

    refused = "so no adapter can be checked against it; write --format full or factors"
    if "auto_map" in config and config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise ExportError(f"base's model brings its own code (auto_map), which is not run, {refused}")
    if config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise ExportError(f"transformers knows no model_type {config.get('model_type')!r} (base's config), {refused}")
    architecture = (config.get("architectures") or [""])[0]
    kind = getattr(transformers, str(architecture), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ExportError(f"transformers has no class {architecture!r} (architectures in base's config), {refused}")
    plain = {key: item for key, item in config.items() if key not in ("quantization_config", "dtype", "torch_dtype")}
    with quiet():
        try:
            settings = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(plain)
            with torch.device("meta"):
                model = kind(settings)
        except Exception as error:  # a config that its own class refuses raises anything
            cause = " ".join(str(error).split())[:200]
            raise ExportError(f"transformers cannot build base's model ({cause}), {refused}") from error
    seen: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            thin = torch.nn.Parameter(torch.zeros(()).expand(parameter.shape), requires_grad=False)
            module.register_parameter(name, seen.setdefault(id(parameter), thin))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.zeros((), dtype=buffer.dtype).expand(buffer.shape))
    return model.eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers and PEFT say on the way: what comes out of them is compared instead."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


def find_targets(pair: CheckpointPair, model: Any) -> Targets:
    """Return what an adapter of a model can change of a pair's repairable tensors."""
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    stored = {paired.name: paired.tuned for paired in pair.tensors if paired.tuned is not None}
    tuned = Checkpoint(pair.tuned.path, stored, pair.base.config, pair.tuned.shards, pair.tuned.fingerprint)
    virtual = {name: _virtual(name, tuple(parameter.shape)) for name, parameter in parameters.items()}
    wanted = Checkpoint(Path("model"), virtual, pair.base.config, (), "")
    found = match_names(tuned, wanted, aligned=False).found
    repairable = {paired.name: paired for paired in pair.repairable}
    targets: list[Target] = []
    missing: dict[str, str] = {}
    for name, info in virtual.items():
        match = found.get(name)
        if match is None or not any(used in repairable for used in match.uses):
            continue
        module, _, parameter = name.rpartition(".")
        reason, kind = _kind(modules[module], parameter, info.shape)
        pieces = () if reason else _pieces(match.base, info)
        if not reason and not pieces:
            reason = f"it is stored in another layout than {name} of the model"
        odd = [used for used in match.uses if used in repairable and repairable[used].rows is not None]
        if odd:
            reason = "its vocabulary is not base's"
        if reason:
            missing.update(dict.fromkeys((used for used in match.uses if used in repairable), reason))
            continue
        transposed = kind == "conv1d" or (
            kind == "parameter" and bool(getattr(modules[module], "is_transposed", False))
        )
        if transposed and any(piece.rows != info.shape[-2] for piece in pieces):
            missing.update(dict.fromkeys(match.uses, "parts of experts that are stored input first"))
            continue
        kept = tuple(piece for piece in pieces if piece.name in repairable)
        targets.append(Target(module, parameter, kind, info.shape, transposed, kept))
    covered = {piece.name for target in targets for piece in target.pieces}
    for name in repairable:
        if name not in covered:
            missing.setdefault(name, f"no parameter of {type(model).__name__} is loaded from it alone")
    shared: dict[int, str] = {}
    tied = ""
    for target in targets:
        first = shared.setdefault(id(parameters[target.name]), target.name)
        tied = target.name if first != target.name else tied
    return Targets(tuple(targets), {name: why for name, why in missing.items() if name not in covered}, tied)


def _virtual(name: str, shape: tuple[int, ...]) -> TensorInfo:
    """Return a parameter of the model as if it were stored."""
    count = 4
    for length in shape:
        count *= length
    return TensorInfo(name, shape, "float32", Path("model"), 0, count)


def _kind(module: Any, parameter: str, shape: tuple[int, ...]) -> tuple[str, str]:
    """Return why PEFT's LoRA cannot change a parameter, or how it does."""
    from transformers.pytorch_utils import Conv1D

    if parameter == "weight":
        for kind, name in ((Conv1D, "conv1d"), (torch.nn.Linear, "linear"), (torch.nn.Embedding, "embedding")):
            if type(module) is kind:
                return "", name
        if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
            return "LoRA of a convolution is not written", ""
    if len(shape) == 2 or (len(shape) == 3 and shape[0] > 1):
        return "", "parameter"
    return f"LoRA has no form for a {type(module).__name__} of shape {shape}", ""


def _pieces(source: TensorInfo, parameter: TensorInfo) -> tuple[Piece, ...]:
    """Return what of which stored tensors a parameter is made of; nothing where the layouts do not fit."""
    if source.shape != parameter.shape:
        return ()
    rows = parameter.shape[-2]
    if isinstance(source, FusedExperts):
        height = rows // source.per_expert
        return tuple(
            Piece(part.name, 0, number // source.per_expert, (number % source.per_expert) * height, height)
            for number, part in enumerate(source.parts)
        )
    count = parameter.shape[0] if len(parameter.shape) == 3 else 1
    return tuple(Piece(source.name, index, index, 0, rows) for index in range(count))
