"""What PEFT makes of an adapter: the names it uses, and the update of every module once it has loaded one."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dgviz.errors import ExportFailedError
from dgviz.export.parts import Part
from dgviz.export.targets import Target, quiet

REFUSED = "so the adapter was not written; write --format full or factors"
_TOLERANCE = 1e-5
"""Largest deviation of a module's update, as a share of its largest entry: float32 sums differ by less."""


def peft_names(model: Any, directory: Path) -> dict[tuple[str, str], str]:
    """Return the name under which PEFT stores A and B of every parameter it would change by a config."""
    import peft

    with quiet():
        config = peft.LoraConfig.from_pretrained(directory)
        adapted = peft.get_peft_model(model, config, low_cpu_mem_usage=True)
        stored = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    names = {}
    for name, target, layer in _lora_layers(adapted):
        embedding = "embedding_" if layer.lora_embedding_A else ""
        for side in "AB":
            key = f"{name}.lora_{embedding}{side}" + ("" if embedding else ".weight")
            if key in stored:
                names[target, side] = key
    return names


def _lora_layers(adapted: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield every LoRA layer of a PEFT model: its name there, the parameter it changes, and the layer."""
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            parameter = layer.parameter_name if isinstance(layer, ParamWrapper) else "weight"
            module = name.removeprefix("base_model.model.").replace(".base_layer", "")
            yield name, f"{module}.{parameter}", layer


def compare_with_peft(directory: Path, model: Any, used: list[Target], parts: Mapping[str, Part]) -> str:
    """Load an adapter with PEFT on base's model, compare the update of every module, and say what was compared."""
    import peft

    try:
        with quiet():
            adapted = peft.PeftModel.from_pretrained(model, directory, torch_device="cpu", low_cpu_mem_usage=True)
            layers = {target: layer for _, target, layer in _lora_layers(adapted)}
    except Exception as error:  # whatever PEFT raises at an adapter it cannot use
        cause = " ".join(str(error).split())[:300]
        raise ExportFailedError(f"PEFT {peft.__version__} cannot load the adapter ({cause}), {REFUSED}") from error
    expected = {target.name for target in used}
    for names, what in ((expected - layers.keys(), "leaves out"), (layers.keys() - expected, "also changes")):
        if names:
            raise ExportFailedError(f"PEFT {peft.__version__} {what} {some_names(sorted(names))}, {REFUSED}")
    worst = 0.0
    for target in used:
        delta = layers[target.name].get_delta_weight("default").float().reshape(target.experts, *target.shape[-2:])
        scale = float(delta.abs().max())
        for piece in target.pieces:
            if parts[piece.name].ranks[piece.index]:
                left, right = parts[piece.name].read(piece.index)
                update = left @ right
                scale = max(scale, float(update.abs().max()))
                delta[piece.expert, piece.row : piece.row + piece.rows] -= update
        off = float(delta.abs().max()) / scale if scale > 0 else 0.0
        worst = max(worst, off)
        if not off <= _TOLERANCE:
            raise ExportFailedError(
                f"PEFT {peft.__version__} changes {target.name} otherwise than planned (by {off:.1e} of its largest "
                f"entry, limit {_TOLERANCE:.0e}), {REFUSED}"
            )
    return f"every update of {len(used)} modules as PEFT {peft.__version__} loads it, within {worst:.0e}"


def some_names(names: Iterable[str], limit: int = 3) -> str:
    """Quote the first names and say how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
