"""Pair two checkpoints: every tensor of both sides is repaired, kept or left out, for one reason."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from dgviz.checkpoint.actions import (
    CAUSES,
    LEFT_OUT,
    MIN_ELEMENTS,
    Why,
    block_float8,
    block_shapes,
    why_kept,
    why_repaired,
)
from dgviz.checkpoint.derived import PlacedTensor, pick_rows
from dgviz.checkpoint.descent import judge_descent
from dgviz.checkpoint.local import local_path, open_checkpoint
from dgviz.checkpoint.lora.adapter import adapter_folder, open_adapter
from dgviz.checkpoint.lora.files import find_lora_file, open_lora_file
from dgviz.checkpoint.module_path import module_path
from dgviz.checkpoint.names import Match, Matches, match_names, unwrapped_names
from dgviz.checkpoint.quantised import PACKED, dequantised, shows_codes
from dgviz.checkpoint.read import files_kept_open
from dgviz.checkpoint.remote.record import is_remote
from dgviz.checkpoint.selection import Selection
from dgviz.checkpoint.stacks import Surroundings
from dgviz.checkpoint.tied import find_copies, same_entries, unstored_head
from dgviz.checkpoint.types import (
    BASE_ONLY,
    BLOCKS,
    KEEP,
    REPAIR,
    WARNING,
    Checkpoint,
    CheckpointPair,
    Notice,
    PairedTensor,
    TensorInfo,
)
from dgviz.checkpoint.ungathered import block_ungathered
from dgviz.checkpoint.vocabulary import Vocabularies, read_vocabularies
from dgviz.errors import CheckpointError, PairError
from dgviz.words import some

_UNMERGED = re.compile("lora_|modules_to_save|flat_param")  # what to look at more closely


def open_pair(
    base_path: str | Path,
    tuned_path: str | Path,
    include: str | None = None,
    exclude: str | None = None,
    force: bool = False,
) -> CheckpointPair:
    """Open two checkpoints and pair them, to be repaired; see `open_checkpoint` and `pair_checkpoints`.

    The tuned side may be a LoRA of the base: a directory with a PEFT adapter (`dgviz.checkpoint.lora.adapter`), or a
    file of another trainer (`dgviz.checkpoint.lora.files`).
    `force`: what leaves something to repair is a warning only, see `CheckpointPair.forced`.
    """
    pair = _open(base_path, tuned_path, include, exclude, True)
    pair = pair.forced() if force else pair
    pair.refuse_blocked()
    return pair


def inspect_pair(
    base_path: str | Path, tuned_path: str | Path, include: str | None = None, exclude: str | None = None
) -> CheckpointPair:
    """Open two checkpoints and pair them, to be looked at: what blocks a repair is a notice of the pair, no error.

    Headers are read, and a fixed sample of the entries (`dgviz.checkpoint.sample`); `open_pair` reads all of a tensor
    that the sample throws doubt on.

    Raises
    ------
    CheckpointError, PairError
        If there is nothing to look at: a side cannot be opened or is quantised, both are the same, or no name is
        common.
    """
    return _open(base_path, tuned_path, include, exclude, False)


def _open(
    base_path: str | Path, tuned_path: str | Path, include: str | None, exclude: str | None, whole: bool
) -> CheckpointPair:
    base = open_checkpoint(base_path)
    found = local_path(tuned_path)
    adapter, lora = adapter_folder(found), find_lora_file(found)
    if adapter is None and lora is None:
        return _pair(base, open_checkpoint(found if found.exists() else tuned_path), include, exclude, whole)
    base = dequantised(base, "base")
    tuned = open_adapter(adapter, base) if adapter is not None else open_lora_file(lora, base)
    return _pair(base, tuned, include, exclude, whole)


def pair_checkpoints(
    base: Checkpoint, tuned: Checkpoint, include: str | None = None, exclude: str | None = None
) -> CheckpointPair:
    """Say of every tensor of two checkpoints what is done with it, and why.

    ``repair``: floating point, of one shape on both sides, a matrix after squeezing, at least 1024 elements, and
    selected. ``keep``: tuned's bytes are copied. ``base_only``: not written.

    Parameters
    ----------
    base, tuned : Checkpoint
        The model before and after fine-tuning.
    include, exclude : str, optional
        Regular expressions searched for in tuned's names: only what `include` finds, and nothing that `exclude`
        finds, is repaired. What they leave out may differ in shape. None or empty: no such restriction.

    Raises
    ------
    PairError
        If the two do not belong together: the same files, no name in common, different shapes, nothing to repair; or
        if an expression is not valid.
    CheckpointError
        If either is quantised.
    """
    pair = _pair(base, tuned, include, exclude, True)
    pair.refuse_blocked()
    return pair


def _pair(
    base: Checkpoint, tuned: Checkpoint, include: str | None, exclude: str | None, whole: bool
) -> CheckpointPair:
    """Pair two checkpoints; what blocks a repair is among the notices."""
    selection = Selection(include or "", exclude or "")
    _refuse_same(base, tuned)
    stale = _tell_stale_quantisation(base, tuned)
    tuned = dequantised(tuned, "tuned")
    base = dequantised(base, "base")
    for side, own in (("base", base), ("tuned", tuned)):
        _refuse_unmerged(own, side)
    matches = match_names(base, tuned)
    if not matches.found:
        raise PairError(_explain_no_match(base, tuned, matches.problem))
    _refuse_half(base, tuned, matches)
    tuned, matches = _unwrapped(base, tuned, matches)
    _refuse_codes(tuned, matches)
    rows = []
    vocabularies = None
    surroundings = Surroundings(tuned)
    for name, info in tuned.tensors.items():
        match = matches.found.get(name)
        if match is None:
            alone = f"Only in tuned, so there is no delta{_other_names(matches.problem)}."
            rows.append(_row(info, None, ("tuned_only", alone)))
            continue
        dropped = selection.drops(name)
        why = (dropped, LEFT_OUT[dropped]) if dropped else None
        if why is None and match.base.shape != info.shape:
            both = ((found.base, tuned.tensors[own]) for own, found in matches.found.items())
            vocabularies = vocabularies or read_vocabularies(base, tuned, both)
            rows.append(_pair_common_rows(info, match, vocabularies))
            continue
        if tuned.is_adapter and match.base in (info, *getattr(info, "parts", ())[: isinstance(info, PlacedTensor)]):
            why = "untouched", "The adapter leaves it as it is in base."
        rows.append(_row(info, match, why or why_kept(info, match.base) or why_repaired(info, match.note)))
    rows = [_laid_out(row, surroundings) for row in rows]
    blockers = _find_blockers(rows, len(matches.found))
    with files_kept_open():
        afar = any(is_remote(side.path) for side in (base, tuned))
        rows, found = judge_descent(rows, whole, afar)
    rows, used = _write_tied_once(rows, tuned, matches, whole)
    left = {name: info for name, info in base.tensors.items() if name not in used}
    copies = find_copies(base, whole) if left else {}
    rows += [_base_only_row(info, copies.get(name), tuned, matches.problem) for name, info in left.items()]
    pair = CheckpointPair(base, tuned, tuple(rows))
    notices = [*blockers, *found, *stale]
    notices += [] if blockers or pair.repairable else [_block_empty(pair)]
    if matches.problem:
        message = f"Names were compared as they are: {matches.problem}."
        remedy = "Look at the tensors that are on one side only; where they belong together, save both sides alike."
        notices.append(Notice("exact_names", WARNING, message, remedy))
    return replace(pair, notices=(*notices, *base.notices, *tuned.notices))


def _row(info: TensorInfo, match: Match | None, why: Why) -> PairedTensor:
    """Return the row of one tensor of tuned."""
    base, via = (None, "") if match is None else (match.base, match.via)
    cause, reason = why
    return PairedTensor(info.name, base, info, CAUSES[cause][0], reason, None, cause, via)


def _laid_out(row: PairedTensor, surroundings: Surroundings) -> PairedTensor:
    """Say of a tensor of three dimensions whether it is a stack; keep one of which nothing tells it."""
    stacked = surroundings.is_stack(row.tuned)
    if stacked is None and row.action == REPAIR:
        reason = "A stack of matrices, or a kernel: nothing tells which, so it is left as in tuned."
        return replace(row, action=KEEP, cause="layout", reason=reason)
    return replace(row, stacked=True) if stacked else row


def _find_blockers(rows: list[PairedTensor], common: int) -> list[Notice]:
    """Return what stands in the way of a repair, by kind."""
    empty = block_ungathered(rows)
    if empty:
        return empty  # of which shapes that differ are no more than a consequence
    shapes, eights = ([row for row in rows if row.cause == cause] for cause in ("shape", "float8"))
    return [*([block_shapes(shapes, common)] if shapes else []), *([block_float8(eights)] if eights else [])]


def _pair_common_rows(info: TensorInfo, match: Match, vocabularies: Vocabularies) -> PairedTensor:
    """Pair the rows of a tensor whose tokens agree; tuned's other rows are copied. Other shapes pair with none."""
    common = vocabularies.common_rows(match.base, info)
    if common is None:
        shapes = f"It is {match.base.shape} in base and {info.shape} in tuned"
        return _row(info, match, ("shape", f"{shapes}: no repair is written until it is excluded."))
    count = sum(end - begin for begin, end in common)
    if count == 0:
        return _row(info, match, ("tokens", "No row has the same token in base and tuned."))
    other = pick_rows(match.base, common)
    own = why_kept(pick_rows(info, common), other)
    if own is not None:
        return _row(info, match, own)
    tokens = vocabularies.by_token(match.base, info)
    known = "by tokenizer.json" if tokens else "by position, for want of a tokenizer.json"
    reason = (
        f"A floating-point matrix over another vocabulary: {count} of its {info.shape[0]} rows have the same token "
        f"in base ({known}) and are repaired, {info.shape[0] - count} are copied."
    )
    rows = None if count == info.shape[0] else common
    return replace(_row(info, match, ("vocabulary", reason)), base=other, rows=rows)


def _write_tied_once(
    rows: list[PairedTensor], tuned: Checkpoint, matches: Matches, whole: bool
) -> tuple[list[PairedTensor], set[str]]:
    """Give a head or embedding that tuned stores beside the tensor it is tied to that tensor's action.

    They are one tensor, and transformers unties them without a word where their bytes differ.
    """
    copies = find_copies(tuned, whole)
    used = {name: match.uses for name, match in matches.found.items()}
    by_name = {row.name: row for row in rows}
    groups: dict[str, list[str]] = {}
    for position, row in enumerate(rows):
        source = by_name.get(copies.get(row.name))
        if source is None:
            continue
        reason = f"Tied to {source.name}: one tensor, stored twice and written twice, bit for bit the same."
        base = source.base
        if None not in (row.base, base) and row.rows == source.rows and same_entries(row.base, base, whole):
            base = row.base
        elif used.get(row.name) != used.get(source.name):
            used[row.name] = ()  # base's own is another tensor, of which nothing is written
        rows[position] = replace(source, name=row.name, base=base, tuned=row.tuned, reason=reason, via="tied")
        groups.setdefault(source.name, [source.name]).append(row.name)
    alias = unstored_head(tuned)
    if alias is not None:
        groups.setdefault(alias[0], [alias[0]]).append(alias[1])
    named = {name: group for group in groups.values() for name in group}
    rows = [
        replace(row, aliases=tuple(name for name in named[row.name] if name != row.name))
        if row.name in named
        else row
        for row in rows
    ]
    return rows, {name for names in used.values() for name in names}


def _base_only_row(info: TensorInfo, source: str | None, tuned: Checkpoint, problem: str) -> PairedTensor:
    """Return the row of a tensor that only base has; `source` is the one of base that it is a copy of."""
    if source is None:
        reason, via = f"Only in base, and the repaired model has tuned's tensors{_other_names(problem)}.", ""
    else:
        reason, via = f"In base a copy of {source}, bit for bit, which tuned does not store again.", "tied"
    # A name that tuned has too is that of a head which tuned ties, and base does not.
    name = f"{info.name} (base)" if info.name in tuned.tensors else info.name
    return PairedTensor(name, info, None, BASE_ONLY, reason, None, "base_only", via)


def _other_names(problem: str) -> str:
    return f" (by exact names: {problem})" if problem else ""


def _explain_no_match(base: Checkpoint, tuned: Checkpoint, problem: str) -> str:
    return (
        f"no tensor name is in both {base.path} (such as {next(iter(base.tensors))!r}) and {tuned.path} (such as "
        f"{next(iter(tuned.tensors))!r}): these are different models, or one was saved with other names"
        f"{_other_names(problem)}"
    )


def _refuse_same(base: Checkpoint, tuned: Checkpoint) -> None:
    # By the files and not the directories: two snapshots of one cached repository may link to the same blobs.
    if not tuned.is_adapter and _files(base) == _files(tuned):
        raise PairError(
            f"base and tuned are the same weights ({base.path} and {tuned.path}): give the model before fine-tuning "
            "as base and the one after it as tuned"
        )


def _unwrapped(base: Checkpoint, tuned: Checkpoint, matches: Matches) -> tuple[Checkpoint, Matches]:
    """Give tuned's tensors the names that its class needs, where a wrapper is in them.

    Without wrappers known by name, which no class has; and, where both sides are one class, as base calls them.
    """
    if tuned.is_adapter:
        return tuned, matches
    plain_base, new = unwrapped_names(base.tensors), unwrapped_names(tuned.tensors)
    if not any(tuned.config.get(key) or base.config.get(key) for key in ("model_type", "architectures")):
        new = {name: name if name in base.tensors else inner for name, inner in new.items()}
    if _is_one_class(base, tuned):
        aligned = {n: plain_base[match.uses[0]] for n, match in matches.found.items() if match.via == "aligned"}
        new |= {name: other for name, other in aligned.items() if other.count(".") < new[name].count(".")}
    if len(set(new.values())) < len(new) or all(name == inner for name, inner in new.items()):
        return tuned, matches
    tensors = {inner: replace(tuned.tensors[name], name=inner) for name, inner in new.items()}
    found = {new[name]: match for name, match in matches.found.items()}
    return replace(tuned, tensors=tensors), replace(matches, found=found)


def _is_one_class(base: Checkpoint, tuned: Checkpoint) -> bool:
    """Say whether both sides are loaded into one class, as far as their configs say."""
    keys = "architectures", "model_type"
    return not tuned.config or all(base.config.get(key) == tuned.config.get(key) for key in keys)


def _refuse_unmerged(checkpoint: Checkpoint, side: str) -> None:
    """Raise where a checkpoint is the state of a training run and not a model's weights."""
    if not _UNMERGED.search("\n".join(checkpoint.tensors)):  # all at once, for hardly any has them
        return
    for name, info in checkpoint.tensors.items():
        parts = name.split(".")
        if any(part.startswith("lora_") for part in parts) or "modules_to_save" in parts:
            raise CheckpointError(
                f"the {side} checkpoint {checkpoint.path} holds {name!r}: the state of a PEFT model whose adapter is "
                "not merged; call merge_and_unload and save_pretrained, or give the adapter's own folder as tuned"
            )
        if "flat_param" in parts[-1]:
            raise CheckpointError(
                f"the {side} checkpoint {checkpoint.path} holds {name!r} of shape {info.shape}: FSDP's flat "
                "parameters, in which many weights lie end to end; save with FULL_STATE_DICT, or merge the shards "
                "(accelerate merge-weights), and give that"
            )


def _refuse_half(base: Checkpoint, tuned: Checkpoint, matches: Matches) -> None:
    """Raise where layers of both sides are left and none is matched: what matches is not the model."""
    used = {name for match in matches.found.values() for name in match.uses}
    left = (
        [name for name in tuned.tensors if name not in matches.found],
        [name for name in base.tensors if name not in used],
    )
    layers = [[name for name in names if _in_layer(name)] for names in left]
    if all(layers) and not any(map(_in_layer, matches.found)):
        raise PairError(
            f"only {some(matches.found)} of {tuned.path} and {base.path} belong together by name, and no layer does "
            f"(such as {layers[0][0]!r} in tuned and {layers[1][0]!r} in base): these are different models, or one "
            f"was saved with other names{_other_names(matches.problem)}"
        )


def _in_layer(name: str) -> bool:
    return bool(module_path(name).layer)


def _refuse_codes(tuned: Checkpoint, matches: Matches) -> None:
    """Raise where one side holds whole numbers in place of the other's weights."""
    for name, match in matches.found.items():
        sides = ("base", match.base, tuned.tensors[name]), ("tuned", tuned.tensors[name], match.base)
        for side, info, other in sides:
            if info.dtype in PACKED and other.is_floating and other.numel >= MIN_ELEMENTS:
                raise CheckpointError(
                    f"tensor {info.name!r} is {info.dtype} in {side} ({info.file}) and {other.dtype} on the other "
                    "side: codes of a quantised weight, which are not read; give the model it was quantised from, or "
                    "save it dequantised as bfloat16"
                )


def _tell_stale_quantisation(base: Checkpoint, tuned: Checkpoint) -> list[Notice]:
    """Tell of a config that speaks of a quantisation which no tensor shows."""
    sides = (("base", base), ("tuned", tuned))
    stale = [side for side, own in sides if "quantization_config" in str(own.config) and not shows_codes(own)]
    if not stale:
        return []
    where = " and ".join(stale)
    message = f"The config of {where} speaks of a quantisation (quantization_config), and no tensor is quantised."
    remedy = "Nothing to do here: the entry is not written. Other loaders quantise or refuse the input because of it."
    return [Notice("stale_quantization", WARNING, message, remedy)]


def _files(checkpoint: Checkpoint) -> set[tuple[int, int]]:
    """Return the device and inode of every weight file."""
    try:
        stats = [(checkpoint.path / shard).stat() for shard in checkpoint.shards]
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint.path} has changed since it was opened ({error.strerror or error}): open it again"
        ) from error
    return {(stat.st_dev, stat.st_ino) for stat in stats}


def _block_empty(pair: CheckpointPair) -> Notice:
    """Return what blocks a pair without anything to repair."""
    reasons = Counter(paired.reason for paired in pair.tensors)
    counted = "; ".join(f"{count} times: {reason.rstrip('.')}" for reason, count in reasons.most_common(4))
    message = f"nothing to repair between {pair.base.path} and {pair.tuned.path} ({counted})."
    return Notice("nothing_to_repair", BLOCKS, message, "give other checkpoints, or select more of these")
