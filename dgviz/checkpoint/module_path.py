"""Where a tensor belongs in its model, read from its name: tower, layer, module, expert, and the class of weight.

Checkpoints name their weights by the path of modules that hold them. The path of a layered model has a list somewhere
(``layers.3``, ``h.3``, ``blocks.3``); what stands before it names the tower, what stands behind it the module, which
is the same in every layer. Lists inside lists (stages of blocks) give a layer of several numbers.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

ATTENTION, MLP, EXPERTS, ROUTER, MIXER, CONVOLUTION, EMBEDDING, HEAD, OTHER = CLASSES = (
    "attention",
    "MLP",
    "experts",
    "router",
    "state space",
    "convolution",
    "embedding",
    "head",
    "other",
)
"""Every class of weight, in the order in which tables and maps show them."""

_LISTS = re.compile(r"(?:\w+_)?(?:layers?|blocks?|resblocks|stages?|resnets|attentions|levels|h)")
_LEAVES = ("weight", "bias")
_EXPERT = re.compile(r"expert_?(\d+)")

# The first expression found in the dotted path (lower case, without numbers and ".weight") names the class. Order
# matters: an expert's gate_proj is no router, the output of an attention no MLP.
_OF_A_LAYER = (
    (EXPERTS, r"(^|\.)(experts|expert)(\.|$)"),
    (ROUTER, r"(^|\.)(router|gate|shared_expert_gate)(\.|$)|(^|\.)router\.\w+$"),
    (MLP, r"ffn|feed_?forward"),
    (MIXER, r"(^|\.)(mixer|mamba|ssm|linear_attn|time_mix\w*)(\.|$)"),
    (
        ATTENTION,
        r"attn|attention|(^|\.)(self_?attn\w*|encdec\w*|to_[qkv]\w*|[qkv]_proj|qkv\w*|query\w*|key|value)(\.|$)",
    ),
    (MLP, r"mlp|(^|\.)ff(\.|$)|dense|intermediate|(^|\.)(fc\w*|wi\w*|wo|w[123]|lin[12])(\.|$)"),
    (CONVOLUTION, r"conv|resnets"),
)
_OUTSIDE = (
    (
        HEAD,
        r"lm_head|proj_out|embed_out|output_projection|vocab_projector|qa_outputs"
        r"|(^|\.)(head|heads|score|classifier|cls)(\.|$)",
    ),
    (EMBEDDING, r"embed|(^|\.)(wte|wpe|shared|tok_embeddings|relative_attention_bias|position\w*)(\.|$)"),
    (CONVOLUTION, r"conv"),
)  # fmt: skip

# Columns of a map in the order in which a layer computes them; what matches none comes after.
_STEPS = {
    ATTENTION: re.compile(
        r"(?P<a>qkv|query_key_value|c_attn|in_proj)|(?P<b>(^|[._])(q|query)([._]|$))|(?P<c>(^|[._])(k|kv|key)([._]|$))"
        r"|(?P<d>(^|[._])(v|value)([._]|$))|(?P<e>(^|[._])(o|out\w*|c_proj|proj|dense)([._]|$))"
    ),
    MIXER: re.compile(r"(?P<a>in_proj)|(?P<b>conv)|(?P<c>x_proj)|(?P<d>dt_proj)|(?P<e>\.[a-z]_log)|(?P<f>out_proj)"),
}
_MLP_STEPS = re.compile(
    r"(?P<a>gate)|(?P<b>w1|wi|fc1|c_fc|intermediate|dense_h_to|lin1|net\.0)|(?P<c>up|w3)"
    r"|(?P<d>down|w2|wo|fc2|c_proj|dense_4h|lin2|net\.2|output)"
)
_LATER = ("cross", "encdec", "encoder_attn", "shared")  # beside the module of the same step without the word


@dataclass(frozen=True)
class Place:
    """Where one tensor belongs.

    Attributes
    ----------
    tower : str
        Path of the list of layers, such as ``model.layers`` or ``vision_model.encoder.layers``; empty outside layers.
    layer : tuple of int
        Number of the layer; several where lists lie in lists; empty outside layers.
    module : str
        Path below the layer, the same in every layer, without ``.weight``; outside layers the whole path.
    expert : int or None
        Number of the expert where a tensor holds one; None for any other, a stack of experts included.
    kind : str
        One of `CLASSES`.
    """

    tower: str
    layer: tuple[int, ...]
    module: str
    expert: int | None
    kind: str

    @property
    def level(self) -> str:
        """The layer's number as people write it: ``"3"``, ``"1.0"``; empty outside layers."""
        return ".".join(map(str, self.layer))


@lru_cache(maxsize=100_000)
def place_of(name: str) -> Place:
    """Return where a tensor belongs."""
    parts = [part for part in name.split(".") if part]
    if len(parts) > 1 and parts[-1] in _LEAVES:
        parts = parts[:-1]
    parts, expert = _without_expert(parts)
    at = _layer_numbers(parts)
    if not at:
        return Place("", (), ".".join(parts) or name, expert, _class(parts, _OUTSIDE + _OF_A_LAYER))
    first = at[0]
    inner = _sublayers(parts, first)
    behind = [i for i in range(first + 1, len(parts)) if i not in at and i not in inner]
    module = ".".join(parts[i] for i in behind) or parts[-1]
    kind = _class([parts[i] for i in behind if i + 1 not in at], _OF_A_LAYER)  # a list of "attentions" holds MLPs too
    return Place(".".join(parts[:first]), tuple(int(parts[i]) for i in at), module, expert, kind)


def _without_expert(parts: list[str]) -> tuple[list[str], int | None]:
    """Return the path without the number of an expert, and that number."""
    for i, part in enumerate(parts[:-1]):
        after = parts[i + 1]
        found = after if after.isdecimal() else (_EXPERT.fullmatch(after) or [None, None])[1]
        if part.endswith("experts") and found is not None:
            return [*parts[: i + 1], *parts[i + 2 :]], int(found)
    return parts, None


def _layer_numbers(parts: list[str]) -> list[int]:
    """Return the positions of the numbers that count layers."""
    numbers = [i for i, part in enumerate(parts) if part.isdecimal() and 0 < i < len(parts) - 1]
    listed = [i for i in numbers if _LISTS.fullmatch(parts[i - 1])]
    if not listed:
        return numbers[:1]  # a list of another name; a number at the end is an entry of a sequence, such as mlp.0
    inner = _sublayers(parts, listed[0])
    return [i for i in listed if i not in inner]


def _sublayers(parts: list[str], first: int) -> set[int]:
    """Return the positions of T5's ``layer.1`` behind ``block.3``: steps of one layer, not layers."""
    if parts[first - 1] == "block" and parts[first + 1 : first + 2] == ["layer"]:
        return {first + 1, first + 2}
    return set()


def _class(parts: list[str], expressions: Iterable[tuple[str, str]]) -> str:
    """Return the class of weight that a path speaks of."""
    path = ".".join(part for part in parts if not part.isdecimal()).lower()
    return next((kind for kind, expression in expressions if re.search(expression, path)), OTHER)


def module_order(module: str, kind: str) -> tuple:
    """Return what sorts module kinds as a layer computes them: by class, then query, key, value, output, up, down."""
    path = module.lower()
    step = _STEPS.get(kind, _MLP_STEPS).search(".".join(path.split(".")[-2:]))
    later = sum(word in path for word in _LATER)
    return CLASSES.index(kind), later, step.lastgroup if step else "z", module


def tower_labels(towers: Iterable[str]) -> dict[str, str]:
    """Return a short label for every tower: what tells it from the others."""
    found = [tower for tower in dict.fromkeys(towers) if tower]
    paths = [tower.split(".") for tower in found]
    if len(paths) == 1:
        return {found[0]: paths[0][-1]}
    while len({path[0] for path in paths if path}) == 1 and all(len(path) > 1 for path in paths):
        paths = [path[1:] for path in paths]
    labels = {}
    for tower, path in zip(found, paths, strict=True):
        others = [other for other in paths if other is not path]
        lengths = (n for n in range(1, len(path)) if not any(other[:n] == path[:n] for other in others))
        labels[tower] = ".".join(path[: next(lengths, len(path))])
    return labels
