"""Where a tensor belongs in its model, read from its name: tower, layer, module, expert, and the class of weight.

Checkpoints name their weights by the path of modules that hold them. The path of a layered model has a list somewhere
(``layers.3``, ``h.3``, ``blocks.3``); what stands before it names the tower, what stands behind it the module, which
is the same in every layer. Lists inside lists (stages of blocks) give a layer of several numbers.
"""

import math
import re
from collections.abc import Iterable, Sequence
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
_EXPERT = re.compile(r"(?:expert_?)?(\d+)")

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

# What stands before the first layer, of all that stands outside them.
_BEFORE = re.compile("embed|wte|wpe|patch|conv1|pos_|position|cls_token|pre_?lay|ln_pre|norm_pre")

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
class ModulePath:
    """Where one tensor belongs.

    Attributes
    ----------
    tower : str
        Path of the list of layers, such as ``model.layers`` or ``vision_model.encoder.layers``; empty outside layers.
    layer : tuple of int
        Number of the layer; several where lists lie in lists, such as stages of blocks; empty outside layers.
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
def module_path(name: str) -> ModulePath:
    """Return where a tensor belongs."""
    parts, places = _read(name)
    expert = int(_EXPERT.fullmatch(parts[places.expert])[1]) if places.expert else None
    module = ".".join([parts[i] for i in places.module]) or (parts[-1] if places.layers else name)
    layer = tuple([int(parts[i]) for i in places.layers])
    tower = ".".join(parts[: places.layers[0]]) if layer else ""
    return ModulePath(tower, layer, module, expert, places.kind)


def cut_name(name: str) -> tuple[str, ...]:
    """Return a tensor's name, cut around the numbers of layer and expert: text, number, text, ..., text."""
    parts, places = _read(name)
    pieces, done = [], 0
    for i in sorted((*places.layers, *([places.expert] if places.expert else []))):
        end = len(".".join(parts[: i + 1]))
        start = end - len(_EXPERT.fullmatch(parts[i])[1])
        pieces += [name[done:start], name[start:end]]
        done = end
    return *pieces, name[done:]


def _read(name: str) -> tuple[list[str], "_Places"]:
    """Return the parts of a dotted name without its leaf, and what they are."""
    parts = name.split(".")
    if len(parts) > 1 and parts[-1] in _LEAVES:
        parts = parts[:-1]
    return parts, _places(".".join(["0" if part.isdecimal() else part for part in parts]))


@dataclass(frozen=True)
class _Places:
    """What the parts of a dotted path are, by their positions; the same where only parts that are numbers differ.

    Attributes
    ----------
    layers : tuple of int
        Parts that are the numbers of a layer.
    expert : int
        The part that has the number of an expert; 0 for none.
    module : tuple of int
        Parts of the module's path.
    kind : str
        One of `CLASSES`.
    """

    layers: tuple[int, ...]
    expert: int
    module: tuple[int, ...]
    kind: str


@lru_cache(maxsize=4096)
def _places(path: str) -> _Places:
    """Return what the parts of a path are, of which every number has been replaced by 0."""
    parts = path.split(".")
    held = [i for i in range(1, len(parts)) if parts[i - 1].endswith("experts") and _EXPERT.fullmatch(parts[i])][:1]
    layers, steps = _layer_numbers(parts, held)
    first = layers[0] if layers else -1
    behind = [i for i in range(first + 1, len(parts)) if i not in (*layers, *steps, *held)]
    spoken = [parts[i] for i in behind if i + 1 not in layers]  # a list of "attentions" holds MLPs too
    kind = _class(".".join(part for part in spoken if not part.isdecimal()).lower(), bool(layers))
    return _Places(tuple(layers), held[0] if held else 0, tuple(behind), kind)


def _layer_numbers(parts: Sequence[str], held: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the positions of the numbers that count layers, and those of T5's ``layer.1``: a step of ``block.3``."""
    numbers = [i for i in range(1, len(parts) - 1) if parts[i].isdecimal() and i not in held]
    listed = [i for i in numbers if _LISTS.fullmatch(parts[i - 1])]
    if not listed:
        return numbers[:1], []  # a list of another name; a number at the end is an entry of a sequence, as mlp.0
    at = listed[0] + 1
    steps = [at, at + 1] if parts[at - 2] == "block" and parts[at] == "layer" else []
    return [i for i in listed if i not in steps], steps


def _class(path: str, layered: bool) -> str:
    """Return the class of weight that a path without numbers speaks of."""
    expressions = _OF_A_LAYER if layered else _OUTSIDE + _OF_A_LAYER
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


def layer_order(layer: tuple[int, ...]) -> tuple[float, ...]:
    """Return what sorts layers from the first to the last; what a stage holds beside its blocks follows them."""
    return *layer, math.inf


def layer_positions(paths: Iterable[ModulePath]) -> dict[tuple[str, tuple[int, ...]], int]:
    """Return where each layer lies on the way through its tower, by tower and layer.

    That is its number. Where stages hold the blocks these are counted through, and what a stage holds beside them,
    such as Swin's ``downsample``, lies with its last block.
    """
    towers: dict[str, set[tuple[int, ...]]] = {}
    for path in paths:
        if path.layer:
            towers.setdefault(path.tower, set()).add(path.layer)
    found = {}
    for tower, layers in towers.items():
        stages = {layer[:end] for layer in layers for end in range(1, len(layer))}
        plain, blocks = not stages, 0
        for layer in sorted(layers | stages, key=layer_order):
            blocks += layer not in stages
            found[tower, layer] = layer[0] if plain else blocks - 1
    return found


def block_depths(names: Iterable[str]) -> dict[str, float]:
    """Return how deep in its tower every tensor lies: 0 in the first layer or before it, 1 in the last or behind."""
    paths = {name: module_path(name) for name in names}
    positions = layer_positions(paths.values())
    last: dict[str, int] = {}
    for (tower, _), position in positions.items():
        last[tower] = max(position, last.get(tower, 0))
    return {
        name: (positions[path.tower, path.layer] / last[path.tower] if last[path.tower] else 1.0)
        if path.layer
        else float(path.kind != EMBEDDING and (path.kind == HEAD or not _BEFORE.search(name)))
        for name, path in paths.items()
    }
