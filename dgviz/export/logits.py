"""Does the output compute what the plan says: its logits against those of a model built in memory from the inputs.

The output is loaded as anybody loads it. The other model is made by the plan once more, from base and tuned, and no
file of the output is read for it: wrong names, shards, configs and ties show as other logits. Both get one random
batch; nothing of it is of any data.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dgviz.checkpoint import CheckpointPair, read_tensor
from dgviz.export.plan import ExportPlan
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from dgviz.repair.whole_model import prepare_method
from dgviz.words import some

LIMITS = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference, as a share of the largest logit, that rounding explains where the engine rounds otherwise."""
_SEED = 20
_ROWS, _TOKENS = 2, 16


class Incomparable(Exception):
    """A model that nothing can be compared with: its inputs are not known here, or parts of it are random."""


@dataclass(frozen=True)
class Expected:
    """What the model that a plan makes of its inputs answers to the first random batch that it takes."""

    dtype: torch.dtype
    batch: dict[str, torch.Tensor]
    logits: torch.Tensor


def expect_logits(plan: ExportPlan, kind: Any, dtype: torch.dtype, device: str) -> Expected:
    """Return what the output, loaded in a dtype, should answer; no file of it is read."""
    return Expected(dtype, *_run_any(build_model(plan.pair, plan.repair, kind, dtype, device)))


def configured_dtype(kind: Any, directory: Path) -> torch.dtype | None:
    """Return the dtype that a config asks for; None where only the weights tell it."""
    dtype = getattr(kind.config_class.from_pretrained(directory), "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else None


def compare_logits(
    plan: ExportPlan, directory: Path, kind: Any, device: str, expected: Expected | None = None
) -> dict[str, Any]:
    """Return the largest difference, the largest logit and the limit; or why there was nothing to compare.

    `expected` may be given where it is known; it is made anew where the output is loaded in another dtype.
    """
    try:
        dtype = configured_dtype(kind, directory)
        if expected is None and dtype is not None:  # before the output is in memory too
            expected = expect_logits(plan, kind, dtype, device)
        written = kind.from_pretrained(directory, local_files_only=True).eval()
        if expected is None or expected.dtype != written.dtype:
            expected = expect_logits(plan, kind, written.dtype, device)
    except Incomparable as error:
        return {"skipped": str(error)}
    found, batch = _run(written, expected.batch), list(expected.batch)
    if found.shape != expected.logits.shape:
        return {"difference": float("inf"), "largest": 0.0, "limit": 0.0, "batch": batch}
    odd = (~found.isfinite()) | (~expected.logits.isfinite())
    same = bool((found.isnan() == expected.logits.isnan()).all())
    difference = (found - expected.logits).masked_fill(odd, 0).abs().max()
    largest = expected.logits.masked_fill(odd, 0).abs().max()
    return {
        "difference": float(difference) if same else float("inf"),
        "largest": float(largest),
        "limit": LIMITS[expected.dtype] * float(largest),
        "batch": batch,
    }


def build_model(pair: CheckpointPair, repair: RepairPlan, kind: Any, dtype: torch.dtype, device: str) -> Any:
    """Return the model that a plan makes of a pair, on the CPU, without writing it."""
    facts = prepare_method(pair, repair, device)
    state = {}
    for paired in pair.tensors:
        if paired.tuned is not None:
            repaired = repair_tensor(paired, repair, device, facts=facts)
            state[paired.name] = read_tensor(repaired.source) if repaired.tensor is None else repaired.tensor.cpu()
    config = json.loads(json.dumps(pair.tuned.config), object_hook=_dense)
    settings = kind.config_class.from_dict(config)
    options = {"config": settings, "state_dict": state, "dtype": dtype, "output_loading_info": True}
    model, info = kind.from_pretrained(None, **options)
    random = [str(key) for name in ("missing_keys", "mismatched_keys") for key in info.get(name) or ()]
    if random:
        raise Incomparable(f"the inputs' names leave {some(random)} of {kind.__name__} random")
    return model.eval()


def _dense(section: dict[str, Any]) -> dict[str, Any]:
    """Return a config without quantisation: what is written is dense."""
    return {key: value for key, value in section.items() if key != "quantization_config"}


def _run_any(model: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the first batch that a model takes, and what it makes of it."""
    cause = f"no input of {type(model).__name__} is known ({model.main_input_name})"
    for batch in _batches(model):
        try:
            return batch, _run(model, batch)
        except Exception as error:  # whatever a model raises at inputs that it needs more of
            cause = f"{type(model).__name__} takes no random batch ({' '.join(str(error).split())[:120]})"
    raise Incomparable(cause)


def _run(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits, or what a model without a head returns first."""
    with torch.inference_mode():
        outputs = model(**batch)
    found = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
    name = next((name for name in ("logits", "logits_per_image", "last_hidden_state") if name in found), None)
    return next(iter(found.values()) if name is None else iter([found[name]])).float()


def _batches(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches to try: what the model names as its main input, then with more."""
    generator = torch.Generator().manual_seed(_SEED)
    config, main = model.config, model.main_input_name
    text, vision = config.get_text_config(), getattr(config, "vision_config", None) or config
    ids = _token_ids(config, text, generator)
    made = {
        "input_ids": ids,
        "pixel_values": _pixels(model, vision, generator),
        "input_features": _features(model, generator),
        "input_values": torch.randn(_ROWS, 4000, generator=generator).to(model.dtype),
    }
    first = {main: made[main]} if made.get(main) is not None else {}
    decoder = {"decoder_input_ids": ids} if getattr(config, "is_encoder_decoder", False) and ids is not None else {}
    for more in ({}, {"pixel_values": made["pixel_values"]}):
        batch = {**first, **decoder, **more}
        if first and all(value is not None for value in batch.values()):
            yield batch


def _token_ids(config: Any, text: Any, generator: torch.Generator) -> torch.Tensor | None:
    """Return random tokens, none of which stands for an image or a sound; each row ends as sentences do."""
    count = getattr(text, "vocab_size", None)
    if not isinstance(count, int):
        return None
    said = {**text.to_dict(), **config.to_dict()}
    special = {value for key, value in said.items() if key.endswith(("_token_id", "_token_index"))}
    special = {item for value in special if value is not None for item in ([value] if isinstance(value, int) else [])}
    plain = torch.tensor([token for token in range(count) if token not in special])
    most = getattr(text, "max_position_embeddings", None)
    length = min(_TOKENS, most) if isinstance(most, int) and most > 0 else _TOKENS
    ids = plain[torch.randint(len(plain), (_ROWS, length), generator=generator)]
    end = getattr(text, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < count:
        ids[:, -1] = end
    return ids


def _pixels(model: Any, vision: Any, generator: torch.Generator) -> torch.Tensor | None:
    size, channels = getattr(vision, "image_size", None), getattr(vision, "num_channels", 3)
    size = size if isinstance(size, list | tuple) else [size, size]
    if not all(isinstance(side, int) for side in size):
        return None
    return torch.randn(_ROWS, channels, *size, generator=generator).to(model.dtype)


def _features(model: Any, generator: torch.Generator) -> torch.Tensor | None:
    bands, length = (getattr(model.config, name, None) for name in ("num_mel_bins", "max_source_positions"))
    if not (isinstance(bands, int) and isinstance(length, int)):
        return None
    return torch.randn(_ROWS, bands, 2 * length, generator=generator).to(model.dtype)


def logits_words(outcome: dict[str, Any]) -> str:
    """Return what the comparison found, in words."""
    if "skipped" in outcome:
        return f"not compared: {outcome['skipped']}"
    return (
        f"as of a model built in memory from plan and inputs, on one random batch ({', '.join(outcome['batch'])}): "
        f"largest difference {outcome['difference']:.1e}, largest logit {outcome['largest']:.3g}"
    )
