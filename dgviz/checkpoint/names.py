"""Which tensor of base belongs to which tensor of tuned: wrapped, renamed, fused and tied ones included."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dgviz.checkpoint.derived import FusedExperts, derive, matrix_rows
from dgviz.checkpoint.renaming import Member, Renaming, rename_like_transformers
from dgviz.checkpoint.tied import is_head, shared_embedding, tied_embedding
from dgviz.checkpoint.types import Checkpoint, TensorInfo

_ANYWHERE = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OUTER = ("module.", "base_model.model.")


@dataclass(frozen=True)
class Match:
    """Base's side of one tensor of tuned.

    Attributes
    ----------
    base : TensorInfo
        The tensor, stored or derived from stored ones.
    uses : tuple of str
        The names of base that it is made of.
    note : str
        How the two belong together where their names differ; empty for equal names.
    via : str
        The same in one word: see `PairedTensor`.
    """

    base: TensorInfo
    uses: tuple[str, ...]
    note: str = ""
    via: str = ""


@dataclass(frozen=True)
class Matches:
    """All matches, by tuned's name, and why transformers could not be asked for more, where it was to be asked."""

    found: Mapping[str, Match]
    problem: str = ""


def match_names(base: Checkpoint, tuned: Checkpoint) -> Matches:
    """Return base's side of every tensor of tuned that has one.

    In this order: equal names; equal names without what ``torch.compile``, FSDP, activation checkpointing, DDP or
    PEFT put in front; where both sides have tensors left, names that transformers loads into the same parameter, and
    experts that one side stores fused and the other one by one; another name of an embedding that encoder and decoder
    share; and an output head that only tuned stores, while base ties it to its embedding. (Kept as they are beside a
    repaired embedding, transformers would untie them silently.)
    """
    found = {name: Match(base.tensors[name], (name,)) for name in tuned.tensors if name in base.tensors}
    inner_base, inner_tuned = unwrapped_names(base.tensors), unwrapped_names(tuned.tensors)
    by_inner = {inner: name for name, inner in inner_base.items()}
    for name, inner in inner_tuned.items():
        other = by_inner.get(inner)
        if name not in found and other is not None and other not in found:
            found[name] = Match(
                base.tensors[other], (other,), f"base calls it {other}, apart from wrappers", "wrapped"
            )
    problem = ""
    left_tuned, left_base = _left(base, tuned, found)
    if left_tuned and left_base:
        config = (
            tuned.config if "model_type" in tuned.config else base.config
        )  # one model for both, or prefixes differ
        first, second = _rename(config, inner_base), _rename(config, inner_tuned)
        problem = first.problem or second.problem
        if not problem:
            found |= _match_renamed(base, first, second, left_base, left_tuned)
            left_tuned, left_base = _left(base, tuned, found)
            found |= _match_members(base, tuned, first, second, left_base, left_tuned)
    for name in tuned.tensors:
        other = None if name in found else shared_embedding(name, base)
        if other is not None:
            found[name] = Match(base.tensors[other], (other,), f"base shares it with {other}", "tied")
    embedding = tied_embedding(base)
    for name in tuned.tensors:
        if name not in found and is_head(name) and not any(map(is_head, base.tensors)) and embedding is not None:
            found[name] = Match(base.tensors[embedding], (embedding,), f"base ties it to {embedding}", "tied")
    return Matches(found, problem)


def unwrapped_names(names: Iterable[str]) -> dict[str, str]:
    """Return every name without what wrappers put into it; unchanged where two would become the same.

    ``_orig_mod``, ``_fsdp_wrapped_module`` and ``_checkpoint_wrapped_module`` go wherever they are; ``module.`` and
    ``base_model.model.`` only where every name begins with it, for models have modules of these names too.
    """
    names = list(names)
    inner = [_ANYWHERE.sub("", name) for name in names]
    stripped = True
    while stripped:
        stripped = False
        for prefix in _OUTER:
            if inner and all(name.startswith(prefix) for name in inner):
                inner = [name.removeprefix(prefix) for name in inner]
                stripped = True
    if len(set(inner)) < len(names) or "" in inner:
        inner = names
    return dict(zip(names, inner, strict=True))


def _left(base: Checkpoint, tuned: Checkpoint, found: Mapping[str, Match]) -> tuple[list[str], list[str]]:
    """Return the names of tuned and of base that are in no match."""
    used = {name for match in found.values() for name in match.uses}
    return [name for name in tuned.tensors if name not in found], [name for name in base.tensors if name not in used]


def _rename(config: Mapping[str, Any], inner: dict[str, str]) -> Renaming:
    """Return transformers' renaming of a checkpoint, keyed by the names as stored."""
    known = rename_like_transformers(config, inner.values())
    names = {name: known.names[short] for name, short in inner.items() if short in known.names}
    members = {name: known.members[short] for name, short in inner.items() if short in known.members}
    return Renaming(names, members, known.problem)


def _match_renamed(
    base: Checkpoint, first: Renaming, second: Renaming, left_base: list[str], left_tuned: list[str]
) -> dict[str, Match]:
    """Match what transformers loads into the same parameter; a target that two tensors share matches none."""
    targets: dict[str, list[str]] = {}
    for name in left_base:
        targets.setdefault(first.names.get(name, name), []).append(name)
    seen = Counter(second.names.get(name, name) for name in left_tuned)
    found = {}
    for name in left_tuned:
        target = second.names.get(name, name)
        others = targets.get(target, [])
        if len(others) == 1 and seen[target] == 1:
            note = f"base calls it {others[0]}, by transformers"
            found[name] = Match(base.tensors[others[0]], (others[0],), note, "renamed")
    return found


def _match_members(
    base: Checkpoint,
    tuned: Checkpoint,
    first: Renaming,
    second: Renaming,
    left_base: list[str],
    left_tuned: list[str],
) -> dict[str, Match]:
    """Match stacks of experts with experts stored one by one, whichever side has which."""
    found = {}
    fused = {first.names.get(name, name): name for name in left_base if name not in first.members}
    for name in left_tuned:
        member = second.members.get(name)
        stack = fused.get(member.stack) if member else None
        if stack is not None:
            part = _part_of(base.tensors[stack], member, tuned.tensors[name])
            if part is not None:
                note = f"it is part of expert {member.expert} of base's {stack}"
                found[name] = Match(part, (stack,), note, "experts")
    groups: dict[str, dict[tuple[int, int], str]] = {}
    for name in left_base:
        member = first.members.get(name)
        if member:
            groups.setdefault(member.stack, {})[member.expert, member.part] = name
    for name in left_tuned:
        group = groups.get(second.names.get(name, name))
        if group and name not in second.members:
            experts = _fuse(base, group, first.members, tuned.tensors[name])
            if experts is not None:
                note = f"base stores its {experts.shape[0]} experts one by one"
                found[name] = Match(experts, tuple(group.values()), note, "experts")
    return found


def _part_of(stack: TensorInfo, member: Member, like: TensorInfo) -> TensorInfo | None:
    """Return one expert's own rows of a stack; None where the shapes do not fit."""
    if len(stack.shape) != 3 or member.expert >= stack.shape[0] or stack.shape[0] < 2:
        return None
    rows = stack.shape[1] // member.parts
    if (rows, stack.shape[2]) != like.shape or rows * member.parts != stack.shape[1]:
        return None
    return matrix_rows(stack.slice(member.expert), member.part * rows, (member.part + 1) * rows)


def _fuse(
    base: Checkpoint, group: dict[tuple[int, int], str], members: Mapping[str, Member], like: TensorInfo
) -> FusedExperts | None:
    """Return base's experts as one stack like tuned's; None where one is missing or the shapes do not fit."""
    per_expert = members[next(iter(group.values()))].parts
    experts = len(group) // per_expert
    order = [(expert, part) for expert in range(experts) for part in range(per_expert)]
    if set(order) != set(group) or len(like.shape) != 3 or experts != like.shape[0]:
        return None
    parts = tuple(base.tensors[group[key]] for key in order)
    rows, cols = like.shape[1] // per_expert, like.shape[2]
    if any(part.shape != (rows, cols) or part.dtype != parts[0].dtype for part in parts):
        return None
    return derive(FusedExperts, parts[0], parts, shape=like.shape, name=like.name, per_expert=per_expert)
