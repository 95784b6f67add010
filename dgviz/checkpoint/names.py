"""Which tensor of base belongs to which tensor of tuned: wrapped, renamed, fused and tied ones included."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dgviz.checkpoint.alignment import align_names
from dgviz.checkpoint.derived import FusedExperts, derive, matrix_rows
from dgviz.checkpoint.renaming import Member, Renaming, rename_like_transformers
from dgviz.checkpoint.tied import find_copies, is_head, shared_embedding, tied_embedding
from dgviz.checkpoint.types import Checkpoint, TensorInfo

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_ANYWHERE = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(map(re.escape, _WRAPPERS))})")
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


def match_names(base: Checkpoint, tuned: Checkpoint, aligned: bool = True) -> Matches:
    """Return base's side of every tensor of tuned that has one.

    In this order: equal names; equal names without what ``torch.compile``, FSDP, activation checkpointing, DDP or
    PEFT put in front; where both sides have tensors left, names that transformers loads into the same parameter, and
    experts that one side stores fused and the other one by one; the same place under other modules (`aligned`, which
    compares a few weights); another name of an embedding that encoder and decoder
    share; and an output head that only tuned stores, while base ties it to its embedding. (Kept as they are beside a
    repaired embedding, transformers would untie them silently.)
    """
    matching = _Matching(base, tuned, {})
    for name in tuned.tensors:
        matching.add(name, name, "", "")
    if len(matching.found) == len(tuned.tensors):
        return Matches(matching.found)
    inner_base, inner_tuned = unwrapped_names(base.tensors), unwrapped_names(tuned.tensors)
    by_inner = {inner: name for name, inner in inner_base.items()}
    for name, inner in inner_tuned.items():
        other = by_inner.get(inner)
        if other not in matching.found:
            matching.add(name, other, f"base calls it {other}, apart from wrappers", "wrapped")
    problem = ""
    if all(matching.left()):
        # One model for both, or prefixes differ.
        config = tuned.config if "model_type" in tuned.config else base.config
        widths = {length for side in (base, tuned) for info in side.tensors.values() for length in info.shape}
        first, second = (
            rename_like_transformers(config, inner.values(), widths).stored_as(inner)
            for inner in (inner_base, inner_tuned)
        )
        problem = first.problem or second.problem
        if not problem:
            matching.add_renamed(first, second)
            matching.add_tied(first, second)
            matching.add_parts(first, second)
            matching.add_stacks(first, second)
    if aligned:
        names = zip((tuned, base), matching.left(), strict=True)
        left = ({name: side.tensors[name] for name in own} for side, own in names)
        for name, other in align_names(*left).items():
            matching.add(name, other, f"base calls it {other}, in another module", "aligned")
    for name in matching.left()[0]:
        other = shared_embedding(name, base)
        matching.add(name, other, f"base shares it with {other}", "tied")
    embedding = tied_embedding(base)
    for name in matching.left()[0]:
        if is_head(name) and not any(map(is_head, base.tensors)):
            matching.add(name, embedding, f"base ties it to {embedding}", "tied")
    if aligned and matching.left()[0]:
        matching.add_copies(find_copies(tuned, whole=False))
    return Matches(matching.found, problem if all(matching.left()) else "")


def unwrapped_names(names: Iterable[str]) -> dict[str, str]:
    """Return every name without what wrappers put into it; unchanged where two would become the same.

    ``_orig_mod``, ``_fsdp_wrapped_module`` and ``_checkpoint_wrapped_module`` go wherever they are; ``module.`` and
    ``base_model.model.`` only where every name begins with it, for models have modules of these names too.
    """
    names = list(names)
    text = "\n".join(names)  # all at once, for few have any
    wrapped = any(wrapper in text for wrapper in _WRAPPERS)
    inner = [_ANYWHERE.sub("", name) for name in names] if wrapped else names
    while inner and (shared := [prefix for prefix in _OUTER if all(name.startswith(prefix) for name in inner)]):
        inner = [name.removeprefix(shared[0]) for name in inner]
    if len(set(inner)) < len(names) or "" in inner:
        inner = names
    return dict(zip(names, inner, strict=True))


@dataclass(frozen=True)
class _Matching:
    """The matches found so far, and the steps that find more among the tensors left."""

    base: Checkpoint
    tuned: Checkpoint
    found: dict[str, Match]

    def left(self) -> tuple[list[str], list[str]]:
        """Return the names of tuned and of base that are in no match."""
        used = {name for match in self.found.values() for name in match.uses}
        tuned = [name for name in self.tuned.tensors if name not in self.found]
        return tuned, [name for name in self.base.tensors if name not in used]

    def add(self, name: str, other: str | None, note: str, via: str) -> None:
        """Match a tensor of tuned, if it has no match yet, with a stored one of base, if there is one."""
        if name not in self.found and other in self.base.tensors:
            self.found[name] = Match(self.base.tensors[other], (other,), note, via)

    def add_renamed(self, first: Renaming, second: Renaming) -> None:
        """Match what transformers loads into the same parameter; a target that two tensors share matches none."""
        tuned, base = self.left()
        others = {first.target(name): name for name in base}
        shared = Counter(map(first.target, base)) | Counter(map(second.target, tuned))
        for name in tuned:
            target = second.target(name)
            if shared[target] == 1:
                other = others.get(target)
                self.add(name, other, f"base calls it {other}, by transformers", "renamed")

    def add_tied(self, first: Renaming, second: Renaming) -> None:
        """Match two names of one parameter, of which either side stores another, by the class's own list of ties."""
        tuned, base = self.left()
        others = {first.tied.get(first.target(name)): name for name in base}
        for name in tuned:
            source = second.tied.get(second.target(name))
            if source is not None and source in others:
                self.add(name, others[source], f"base stores it as {others[source]}, which is tied to it", "tied")

    def add_copies(self, copies: Mapping[str, str]) -> None:
        """Match further names of a tensor that tuned stores several times and base once."""
        groups: dict[str, list[str]] = {}
        for name, source in copies.items():
            groups.setdefault(source, [source]).append(name)
        for group in groups.values():
            known = next((name for name in group if name in self.found), None)
            if known is not None and len(self.found[known].uses) == 1:
                other = self.found[known].uses[0]
                for name in group:
                    self.add(name, other, f"tuned ties it to {known}, which is base's {other}", "tied")

    def add_parts(self, first: Renaming, second: Renaming) -> None:
        """Match experts that tuned stores one by one with the rows of base's stack."""
        tuned, base = self.left()
        stacks = {first.target(name): name for name in base if name not in first.members}
        for name in tuned:
            member = second.members.get(name)
            stack = stacks.get(member.stack) if member else None
            part = _part_of(self.base.tensors[stack], member, self.tuned.tensors[name]) if stack else None
            if part is not None:
                note = f"it is part of expert {member.expert} of base's {stack}"
                self.found[name] = Match(part, (stack,), note, "experts")

    def add_stacks(self, first: Renaming, second: Renaming) -> None:
        """Match tuned's stacks with experts that base stores one by one."""
        tuned, base = self.left()
        stacks = Renaming(members={name: first.members[name] for name in base if name in first.members}).stacks
        for name in tuned:
            group = {} if name in second.members else stacks.get(second.target(name), {})
            experts = _fuse(self.base, group, self.tuned.tensors[name]) if group else None
            if experts is not None:
                note = f"base stores its {experts.shape[0]} experts one by one"
                self.found[name] = Match(experts, tuple(group), note, "experts")


def _part_of(stack: TensorInfo, member: Member, like: TensorInfo) -> TensorInfo | None:
    """Return one expert's own rows of a stack; None where the shapes do not fit."""
    if len(stack.shape) != 3 or member.expert >= stack.shape[0] or stack.shape[0] < 2:
        return None
    rows = stack.shape[1] // member.parts
    if (rows, stack.shape[2]) != like.shape or rows * member.parts != stack.shape[1]:
        return None
    return matrix_rows(stack.slice(member.expert), member.part * rows, (member.part + 1) * rows)


def _fuse(base: Checkpoint, group: Mapping[str, Member], like: TensorInfo) -> FusedExperts | None:
    """Return base's experts as one stack like tuned's; None where one is missing or the shapes do not fit."""
    placed = {(member.expert, member.part): base.tensors[name] for name, member in group.items()}
    per_expert = next(iter(group.values())).parts
    experts = len(placed) // per_expert
    order = [(expert, part) for expert in range(experts) for part in range(per_expert)]
    if set(order) != set(placed) or len(like.shape) != 3 or experts != like.shape[0]:
        return None
    parts = tuple(placed[place] for place in order)
    rows, cols = like.shape[1] // per_expert, like.shape[2]
    if any(part.shape != (rows, cols) or part.dtype != parts[0].dtype for part in parts):
        return None
    return derive(FusedExperts, parts[0], parts, shape=like.shape, name=like.name, per_expert=per_expert)
