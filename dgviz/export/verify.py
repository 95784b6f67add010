"""Proof of what was written: headers, a sample of every tensor's values, and a load by transformers itself."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from dgviz.checkpoint import open_checkpoint, read_bytes
from dgviz.checkpoint.types import DerivedTensor
from dgviz.errors import CheckpointError, ExportFailedError
from dgviz.export.loading import Loading, not_loadable
from dgviz.export.logits import logits_words
from dgviz.export.plan import ExportPlan
from dgviz.export.reload import KINDS, incomparable
from dgviz.export.shard import ITEM_BYTES

_BUG = "do not use the output: delete it and export again"


def sampled_ranges(dtype: str, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the byte ranges (begin, end) of the rows sampled of a tensor: its first, middle and last.

    A row runs along the last dimension.
    """
    return [(row * width, (row + 1) * width) for row, width in _sampled_rows(dtype, shape)]


def _sampled_rows(dtype: str, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of the sampled rows and their width in bytes."""
    rows = 1
    for length in shape[:-1]:
        rows *= length
    width = ITEM_BYTES[dtype] * (shape[-1] if shape else 1)
    for row in sorted({0, rows // 2, rows - 1}) if rows and width else []:
        yield row, width


def sample_digest(dtype: str, shape: tuple[int, ...], data: memoryview) -> str:
    """Return the hash of the sampled rows of a tensor's bytes."""
    return _digest(bytes(data[begin:end]) for begin, end in sampled_ranges(dtype, shape))


def _digest(pieces: Iterator[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def verify_headers(plan: ExportPlan, directory: Path) -> str:
    """Open what was written as any reader would, compare it with the plan, and say what was compared."""
    try:
        written = open_checkpoint(directory)
    except CheckpointError as error:
        raise ExportFailedError(f"what was written to {plan.out} does not read back: {error}; {_BUG}") from error
    expected = {
        item.name: (plan.repair.output_dtype(item.tuned), item.tuned.shape)
        for shard in plan.shards
        for item in shard.tensors
    }
    found = {name: (info.dtype, info.shape) for name, info in written.tensors.items()}
    for name in expected.keys() | found.keys():
        if expected.get(name) != found.get(name):
            raise ExportFailedError(
                f"what was written to {plan.out} differs from the plan: {name} should be {expected.get(name)}, "
                f"is {found.get(name)}; {_BUG}"
            )
    return f"names, shapes and dtypes of {len(found)} tensors"


def verify_values(plan: ExportPlan, samples: Mapping[str, str], rows: Mapping[str, Any]) -> str:
    """Read sampled rows of every tensor back with safetensors, compare them, and say what was compared.

    They must be the bytes that were computed; and, where a tensor was copied, the input's at the same place.
    """
    copied = 0
    for shard in plan.shards:
        with safe_open(plan.out / shard.name, framework="pt") as file:
            for item in shard.tensors:
                dtype, shape = plan.repair.output_dtype(item.tuned), item.tuned.shape
                if _digest(_read_rows(file, item.name, dtype, shape)) != samples[item.name]:
                    raise ExportFailedError(
                        f"{plan.out / shard.name}: values of {item.name} are not those that were written; {_BUG}, "
                        "and look at the disk"
                    )
                side = {"tuned bytes": item.tuned, "base bytes": item.base}.get(rows[item.name]["written"])
                if side is not None and not isinstance(side, DerivedTensor):
                    copied += 1
                    pieces = (read_bytes(side, begin, end - begin) for begin, end in sampled_ranges(dtype, shape))
                    if _digest(map(bytes, pieces)) != samples[item.name]:
                        raise ExportFailedError(
                            f"{plan.out / shard.name}: {item.name} should be a copy of {side.file} and is not; {_BUG}"
                        )
    return f"first, middle and last row of {len(samples)} tensors; of {copied} copied ones against the input too"


def _read_rows(file: Any, name: str, dtype: str, shape: tuple[int, ...]) -> Iterator[bytes]:
    """Yield the bytes of the sampled rows as safetensors reads them."""
    for row, _ in _sampled_rows(dtype, shape):
        if not shape:
            yield _bytes(file.get_tensor(name))
            continue
        index = []
        for length in reversed(shape[:-1]):
            row, place = divmod(row, length)
            index.insert(0, slice(place, place + 1))
        yield _bytes(file.get_slice(name)[(*index, slice(None))])


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def verify_load(
    plan: ExportPlan, config: bytes | None, index: bytes | None, loading: Loading | None = None
) -> tuple[dict[str, Any], float]:
    """Load the output with transformers before it has its config, so that a failure leaves nothing that loads.

    Returns what was found, and the seconds that comparing logits took.
    """
    if reason := not_loadable(config):
        return {"transformers": {"skipped": reason}}, 0.0
    with loading or Loading(plan) as loading:
        outcome = loading.load(config, index)
    logits, seconds = (
        outcome.pop("logits", {"skipped": incomparable(outcome) or loading.refused}),
        outcome.pop("seconds", 0.0),
    )
    _refuse_keys(plan, outcome)
    if plan.check_logits is False or "skipped" in outcome:  # without a model there are no logits to speak of
        return {"transformers": outcome}, seconds
    if not logits.get("difference", 0) <= logits.get("limit", 0):
        raise ExportFailedError(
            f"what was written to {plan.out} has other logits than planned: {logits_words(logits)}; {_BUG}"
        )
    return {"transformers": outcome, "logits": logits_words(logits)}, seconds


def _refuse_keys(plan: ExportPlan, outcome: Mapping[str, Any]) -> None:
    """Raise where keys of the output do not fit that fit in tuned."""
    known = set(outcome.get("as_in_tuned", ()))
    for kind in KINDS:
        new = [key for key in outcome.get(kind, ()) if key not in known]
        if new:
            raise ExportFailedError(
                f"transformers' {outcome['class']} loads what was written to {plan.out} with {kind} keys: "
                f"{', '.join(new[:3])} ({len(new)} in all); {_BUG}"
            )
