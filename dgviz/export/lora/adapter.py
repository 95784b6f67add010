"""A LoRA adapter that holds the kept directions: exact in float32, compared module by module as PEFT has loaded it.

All modules have one rank, the largest that is kept anywhere, with zeros beyond their own, and one scale of 1
(``lora_alpha = r``): vLLM divides one alpha by one rank, llama.cpp one alpha by each module's own, and neither reads
PEFT's pattern fields. Format: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dgviz.checkpoint import PairedTensor, content_hash, read_tensor
from dgviz.errors import ExportError, ExportFailedError
from dgviz.export.copies import copy_sidecars
from dgviz.export.lineage import hub_name
from dgviz.export.lora.peft_check import REFUSED, compare_with_peft, peft_names, some_names
from dgviz.export.manifest import PARTS
from dgviz.export.parts import Part, describe_parts, iter_parts
from dgviz.export.plan import ADAPTER_CONFIG, ExportPlan
from dgviz.export.report import write_report
from dgviz.export.shard import Entry, ShardWriter, shard_order
from dgviz.export.targets import Target, Targets, build_model, find_targets
from dgviz.files import sync, write_file
from dgviz.jobs.executor import Executor
from dgviz.repair.report import TensorReport

WEIGHTS = "adapter_model.safetensors"
_STAGING = "adapter.partial"
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as its ``--max-lora-rank``: https://docs.vllm.ai/en/v0.14.0/api/vllm/config/lora/"""


def iter_adapter(plan: ExportPlan, executor: Executor) -> Iterator[TensorReport | dict[str, Any]]:
    """Write an adapter, yielding a report after every tensor and the content of ``dgviz.json`` last."""
    targets = find_targets(plan.pair, build_model(plan.pair.base.config))
    covered = {piece.name for target in targets.found for piece in target.pieces}
    parts: dict[str, Part] = {}
    for report, part in iter_parts(plan, [item for item in plan.pair.repairable if item.name in covered], executor):
        parts[part.name] = part
        yield report
    ranks = {target.name: _kept_rank(target, parts) for target in targets.found}
    used = [target for target in targets.found if ranks[target.name]]
    if not used:
        raise ExportError(
            f"nothing of the update of {plan.pair.tuned.path} is left for an adapter: every rank is 0"
            + (f" or has no place in one ({some_names(targets.missing)})" if targets.missing else "")
        )
    left = dict(_left_at_base(plan, targets))
    staging = plan.out / PARTS / _STAGING
    staging.mkdir(exist_ok=True)
    rank = max(ranks.values())
    used, names = _name_targets(plan, used, rank, staging)
    digest = _write_weights(staging / WEIGHTS, used, rank, parts, names)
    verified = compare_with_peft(staging, build_model(plan.pair.base.config), used, parts)
    copy_sidecars(plan)
    report = describe_parts(plan, parts.values(), executor.device, staging / WEIGHTS, digest)
    report["left_at_base"] = left
    report["warnings"] = [*_about(targets, left), *report["warnings"]]
    report["verified"] = {"peft": verified}
    report["loading"] = _loading(rank, min(filter(None, ranks.values())))
    write_report(plan, report, {name: part.row for name, part in parts.items()})
    (staging / WEIGHTS).replace(plan.out / WEIGHTS)
    (staging / ADAPTER_CONFIG).replace(plan.out / ADAPTER_CONFIG)
    sync(plan.out)
    yield report


def _loading(rank: int, least: int) -> str:
    """Return what a loader needs to know of the ranks."""
    said = f"every module has rank {rank}" + (f", {least} or more of it used, the rest zeros" if least < rank else "")
    allowed = next((limit for limit in _VLLM_RANKS if limit >= rank), None)
    if allowed is None:
        return f"{said}; vLLM loads no adapter of more than {_VLLM_RANKS[-1]}: write --format full for it"
    return f"{said}; vLLM needs --max-lora-rank {allowed}"


def _kept_rank(target: Target, parts: Mapping[str, Part]) -> int:
    """Return how many directions of a target are kept: for a stack the most of an entry, summed over its pieces."""
    ranks: dict[int, int] = {}
    for piece in target.pieces:
        ranks[piece.expert] = ranks.get(piece.expert, 0) + parts[piece.name].ranks[piece.index]
    return max(ranks.values(), default=0)


def _config(plan: ExportPlan, used: list[Target], rank: int) -> dict[str, Any]:
    """Return ``adapter_config.json``."""
    architecture = (plan.pair.base.config.get("architectures") or [""])[0]
    kinds = {target.kind for target in used}
    base = plan.pair.base
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if architecture.endswith(("ForCausalLM", "LMHeadModel")) else None,
        "base_model_name_or_path": plan.base_id or str(base.path.resolve()),
        "revision": base.path.name if plan.base_id == hub_name(base) is not None else None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": [target.module for target in used if target.kind != "parameter"],
        "target_parameters": [target.name for target in used if target.kind == "parameter"] or None,
        "fan_in_fan_out": "conv1d" in kinds and kinds <= {"conv1d", "embedding"},
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def _name_targets(
    plan: ExportPlan, used: list[Target], rank: int, staging: Path
) -> tuple[list[Target], dict[tuple[str, str], str]]:
    """Write a config by which PEFT changes every target; return them and the names it stores A and B under.

    For some mixtures of experts PEFT takes ``gate_proj`` and its like for old names of fused experts, and drops the
    dense modules that are still called so. As parameters instead of modules they are taken as they are.
    """
    problem = ""
    for _ in range(2):
        config = _config(plan, used, rank)
        write_file(staging / ADAPTER_CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        try:
            names = peft_names(build_model(plan.pair.base.config), staging)
        except Exception as error:  # whatever PEFT raises at a config it cannot follow
            names, problem = {}, " ".join(str(error).split())[:200]
        dropped = {target for target in used if (target.name, "A") not in names}
        if not dropped:
            return used, names
        used = [
            replace(item, kind="parameter") if item in dropped and item.kind == "linear" else item for item in used
        ]
    raise ExportFailedError(
        f"PEFT changes nothing of {some_names(item.name for item in dropped)} "
        f"({problem or 'and does not say why'}), {REFUSED}"
    )


def _write_weights(
    path: Path, used: list[Target], rank: int, parts: Mapping[str, Part], names: Mapping[tuple[str, str], str]
) -> str:
    """Write the adapter's tensors under the names PEFT gives them, one at a time; return the file's hash."""
    entries, sources = [], {}
    for target in used:
        for side, shape in zip("AB", _lora_shapes(target, rank), strict=True):
            entry = Entry(names[target.name, side], "float32", shape)
            entries.append(entry)
            sources[entry.name] = (target, side)
    entries.sort(key=lambda entry: shard_order(entry.dtype, entry.name))
    with ShardWriter(path, entries) as writer:
        for entry in entries:
            target, side = sources[entry.name]
            tensor = _lora_factor(target, side, rank, parts)
            writer.write(entry.name, memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))
    return writer.digest


def _lora_shapes(target: Target, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of A (rank, in) and B (out, rank); for a stack the ranks of all entries together."""
    total = rank * target.experts
    rows, columns = target.shape[-2:]
    return ((total, rows), (columns, total)) if target.exchanged else ((total, columns), (rows, total))


def _lora_factor(target: Target, side: str, rank: int, parts: Mapping[str, Part]) -> torch.Tensor:
    """Return A or B of a target, float32, as PEFT lays it out.

    For a stack, A has entry e's rank k in row ``e * r + k`` and B in column ``k * E + e``; ranks that a target or an
    entry does not have are zero. A parameter stored input first, and an embedding, has the factors' roles exchanged.
    """
    first, second = _lora_shapes(target, rank)
    width = first[1] if side == "A" else second[0]
    out = torch.zeros(target.experts, rank, width)
    filled: dict[int, int] = {}
    for piece in target.pieces:
        count = parts[piece.name].ranks[piece.index]
        if not count:
            continue
        left, right = parts[piece.name].read(piece.index)
        start = filled.get(piece.expert, 0)
        filled[piece.expert] = start + count
        block = out[piece.expert, start : start + count]
        if (side == "A") == target.exchanged:
            block[:, piece.row : piece.row + piece.rows] = left.T
        else:
            block[:] = right
    if side == "A":
        return out.reshape(target.experts * rank, width)
    return out.permute(2, 1, 0).reshape(width, rank * target.experts)


def _left_at_base(plan: ExportPlan, targets: Targets) -> Iterator[tuple[str, str]]:
    """Yield the tensors that tuned changes and the adapter does not, with the reason."""
    for paired in plan.pair.tensors:
        why = targets.missing.get(paired.name)
        if paired.tuned is None or (paired.action == "repair" and why is None):
            continue
        if paired.base is None:
            yield paired.name, "base has no such tensor"
        elif _differs(paired):
            yield paired.name, why or f"it is not repaired ({paired.reason.rstrip(chr(46))})"


def _differs(paired: PairedTensor) -> bool:
    """Return whether tuned holds other values than base."""
    base, tuned = paired.base, paired.tuned
    if (base.dtype, base.shape) == (tuned.dtype, tuned.shape) and content_hash(base) == content_hash(tuned):
        return False
    return base.shape != tuned.shape or not torch.equal(read_tensor(base).double(), read_tensor(tuned).double())


def _about(targets: Targets, left: Mapping[str, str]) -> list[str]:
    """Return what a user must know of an adapter beside its figures."""
    found = []
    if left:
        found.append(
            f"{len(left)} tensors that differ in tuned stay as in base, so base with the adapter is not the model of "
            f"the full export: {some_names(left)}"
        )
    if targets.tied:
        found.append(
            f"base ties {targets.tied} to its embedding; the adapter changes both, each where it is used: keep it "
            "apart from base, for merging it would add both updates to the one tensor"
        )
    return found
