"""Directions of an update read through base's vocabulary: the tokens at their two ends; torch only where it reads.

A matrix of a layer touches the residual stream with one of its sides. What it writes there (left singular vectors of
a matrix stored output first) is held against every row of the output head, what it reads from there against every
row of the embedding. Norms are left out. After "Analyzing Transformers in Embedding Space" (Dar et al., 2022, arXiv
2209.02535).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dgviz.checkpoint.derived import matrix_rows
from dgviz.checkpoint.module_path import EMBEDDING, ModulePath, module_path
from dgviz.checkpoint.read import read_tensor
from dgviz.checkpoint.tied import is_embedding, is_head
from dgviz.checkpoint.types import Checkpoint, CheckpointPair, DerivedTensor, TensorInfo
from dgviz.checkpoint.vocabulary import read_texts
from dgviz.errors import LensError, SpectrumError, printable
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.weight import Weight
from dgviz.table import Table

if TYPE_CHECKING:
    import torch

    from dgviz.spectra.open_weight import OpenWeight

_Array = NDArray[np.floating]
TOKENS = 10  # of each end
BESIDE_NOISE = "as noise", "stands out"
_RANDOM, _SEED = 100, 23  # directions of noise that others are held against
_HIGH = 0.95
_LONGEST = 40  # letters of a token in one piece
_STRONGEST = 3  # directions, kept and dropped, in a table
_SHOWN = 8  # tokens of an end there
_COLUMNS = "weight", "direction", "plan", "reading", "towards", "away", "z", "z_of_19_in_20_random", "beside noise"
_BLOCK = 16 * 2**20  # bytes of an embedding that are read at once

_WRITES = re.compile(
    r"(o|out|c|down)_proj|o|wo|w2|fc2|fc_out|out_lin|lin2|dense|dense_4h_to_h|(down_)?proj_out", re.IGNORECASE
)
_READS = re.compile(
    r"(w?[qkv]|w?qkv|query|key|value|query_key_value|gate|up|gate_up|up_gate)(_proj)?|[qkv]_lin|c_attn|c_fc|fc1|fc_in"
    r"|w[13]|wi|wi_\d|lin1|dense_h_to_4h|in_proj\w*|q_a_proj|kv_a_proj\w*|router|shared_expert_gate",
    re.IGNORECASE,
)
_MASKED = re.compile(r"predictions\.transform|lm_head\.dense|vocab_transform")
_CROSS = re.compile(r"encdec|encoder_attn|cross", re.IGNORECASE)


@dataclass(frozen=True)
class Lens:
    """Where a weight touches the residual stream, and what its directions are read through there.

    Attributes
    ----------
    side : str
        ``"u"`` or ``"v"``: which of a direction's two vectors lies in the stream.
    role : str
        ``"writes"`` or ``"reads"``.
    table : TensorInfo
        Base's output head or embedding, a row for every token.
    folder : Path
        Base's, which may have a tokenizer.
    """

    side: str
    role: str
    table: TensorInfo
    folder: Path


@dataclass(frozen=True)
class Token:
    """A token at one end of a direction.

    Attributes
    ----------
    id : int
        Its row.
    text : str
        What it stands for; empty where base has no ``tokenizer.json``.
    z : float
        Its product with the direction: standard deviations from the mean of all tokens.
    """

    id: int
    text: str
    z: float

    def __str__(self) -> str:
        """Return the text in one piece, with marks for its spaces, or the id."""
        text = self.text if len(self.text) <= _LONGEST else f"{self.text[:_LONGEST]}…"
        return printable(text).replace(" ", "␣") or f"#{self.id}"


@dataclass(frozen=True)
class Chance:
    """How far the strongest token of a random direction stands out.

    Attributes
    ----------
    usual, high : float
        The median and the 95th percentile of ``|z|``.
    """

    usual: float
    high: float


@dataclass(frozen=True)
class Reading:
    """One direction read through the vocabulary.

    Attributes
    ----------
    number : int
        Its place, the strongest being 1.
    side, role, through : str
        See `Lens`; the name of the table.
    plus, minus : tuple of Token
        The tokens that its vector points to and away from, the strongest first. The sign of a pair of singular
        vectors is free: which end is which says nothing.
    chance : Chance
        Of random directions through the same table.
    """

    number: int
    side: str
    role: str
    through: str
    plus: tuple[Token, ...]
    minus: tuple[Token, ...]
    chance: Chance

    @property
    def strongest(self) -> float:
        """How far its strongest token stands out, at either end."""
        return max((abs(end[0].z) for end in (self.plus, self.minus) if end), default=0.0)

    @property
    def stands_out(self) -> bool:
        """Whether that is more than 19 of 20 random directions have."""
        return self.strongest > self.chance.high

    @property
    def sentence(self) -> str:
        """How concentrated it is, beside random directions."""
        verdict = "" if self.stands_out else ": these tokens say no more than those of noise"
        return (
            f"its strongest token stands out by {self.strongest:.2f} standard deviations, that of a random direction "
            f"by {self.chance.usual:.2f}, of 19 in 20 by {self.chance.high:.2f} at most{verdict}"
        )

    @property
    def about(self) -> str:
        """What was read, and through what."""
        return f"{self.side}, which it {self.role}, against {self.through}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"stands_out": self.stands_out, "sentence": self.sentence}


def vocabulary_tables(base: Checkpoint) -> tuple[TensorInfo, TensorInfo] | None:
    """Return a checkpoint's embedding of tokens and its output head, which may be one; None where it has none."""
    outside = {
        name: info
        for name, info in base.tensors.items()
        if len(info.shape) == 2 and info.is_floating and not module_path(name).layer
    }
    embeddings = [name for name in outside if is_embedding(name) or name.endswith("tok_embeddings.weight")]
    if not embeddings:
        return None
    embedding = outside[min(embeddings, key=lambda name: (not name.endswith("shared.weight"), len(name)))]
    heads = [
        name
        for name, info in outside.items()
        if name not in embeddings
        and module_path(name).kind != EMBEDDING
        and (info.shape == embedding.shape or (is_head(name) and info.shape[1] == embedding.shape[1]))
    ]
    return embedding, outside[min(heads, key=len)] if heads else embedding


def find_lens(base: Checkpoint, weight: Weight) -> Lens:
    """Return how directions of a weight's update can be read.

    Raises
    ------
    LensError
        If they cannot: there are no tokens, or neither side of the weight lies in their residual stream.
    """
    tables = vocabulary_tables(base)
    if tables is None:
        raise LensError(f"{base.path.name} has no embedding of tokens through which a direction could be read")
    embedding, head = tables
    name, width = weight.base.name, embedding.shape[1]
    if any(map(_MASKED.search, base.tensors)):
        raise LensError("a masked language model has a layer of its own before the vocabulary: no direction is read")
    if name in (embedding.name, head.name):
        return Lens("v", "writes" if name == embedding.name else "reads", head, base.path)
    path = module_path(name)
    role = _role(path)
    if role is None or _CROSS.search(path.module) or not _is_of(path, embedding.name):
        raise LensError(f"it is not known that {name} reads or writes the residual stream of the tokens")
    sides = [side for side, length in zip("uv", weight.shape, strict=True) if length == width]
    if not sides:
        rows, columns = weight.shape
        raise LensError(f"neither side of {name}, {rows} x {columns}, is as wide as the residual stream, {width}")
    side = sides[0]
    if len(sides) == 2:
        side = (
            "u" if (role == "writes") == _is_output_first(base, path.tower, weight.index is not None, width) else "v"
        )
    return Lens(side, role, head if role == "writes" else embedding, base.path)


def _role(path: ModulePath) -> str | None:
    """Return what a matrix of a layer does with the residual stream, by its name."""
    leaf = path.module.rpartition(".")[2]
    if _READS.fullmatch(leaf) or re.search(r"intermediate\.dense$", path.module):
        return "reads"
    return "writes" if _WRITES.fullmatch(leaf) else None


def _is_of(path: ModulePath, embedding: str) -> bool:
    """Say whether a layer lies in the tower whose stream the tokens enter and leave."""
    parts = path.tower.split(".")
    stem = embedding.split(".")[:-2]
    return bool(path.layer) and parts[: len(stem)] == stem and "encoder" not in parts


def _is_output_first(base: Checkpoint, tower: str, stacked: bool, width: int) -> bool:
    """Say how a square matrix is stored: as others of its tower whose shapes tell, else as ``torch.nn.Linear``."""
    for name, info in base.tensors.items():
        path = module_path(name)
        role, shape = _role(path), info.shape[-2:]
        if path.tower != tower or role is None or len(info.shape) != 2 + stacked:
            continue
        if (shape[0] == width) != (shape[1] == width):
            return (shape[0] == width) == (role == "writes")
    return True


class OpenLens:
    """An embedding or head at work: what its tokens stand for and what noise looks like through it, made once.

    Parameters
    ----------
    lens : Lens
        Of any weight that is read through it.
    """

    def __init__(self, lens: Lens) -> None:
        self.table, self.folder = lens.table, lens.folder

    @cached_property
    def texts(self) -> dict[int, str]:
        """What tokens stand for, by id; empty where base has no ``tokenizer.json``."""
        return read_texts(self.folder) or {}

    @cached_property
    def chance(self) -> Chance:
        """What random directions have."""
        vectors = np.random.default_rng(_SEED).standard_normal((self.table.shape[1], _RANDOM))
        strongest = np.abs(self._z(vectors)).max(0)
        return Chance(float(np.median(strongest)), float(np.quantile(strongest, _HIGH)))

    def read(self, lens: Lens, numbers: Sequence[int], vectors: _Array) -> list[Reading]:
        """Return directions of one weight.

        Parameters
        ----------
        lens : Lens
            The weight's.
        numbers : sequence of int
            Which directions they are.
        vectors : (d, k) array
            Of each the singular vector that lies in the residual stream.
        """
        about = (lens.side, lens.role, self.table.name)
        return [
            Reading(number, *about, self._strongest(z, -z), self._strongest(z, z), self.chance)
            for number, z in zip(numbers, self._z(vectors).T, strict=True)
        ]

    def _strongest(self, z: _Array, order: _Array) -> tuple[Token, ...]:
        first = np.argsort(order, kind="stable")[:TOKENS]
        return tuple(Token(int(row), self.texts.get(int(row), ""), float(z[row])) for row in first)

    def _z(self, vectors: _Array) -> _Array:
        """Return the product of every token with every vector, in standard deviations from the mean of all tokens."""
        import torch

        columns = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
        products = torch.cat([block.float() @ columns for block in self._blocks()])
        spread, mean = torch.std_mean(products, 0, correction=0)
        return ((products - mean) / torch.where(spread > 0, spread, 1)).numpy()

    def _blocks(self) -> "Iterator[torch.Tensor]":
        """Yield the table's rows in order, so many at a time; of a table that is computed, all at once."""
        rows = self.table.shape[0]
        step = rows if isinstance(self.table, DerivedTensor) else max(1, _BLOCK * rows // max(1, self.table.nbytes))
        for begin in range(0, rows, step):
            yield read_tensor(matrix_rows(self.table, begin, min(rows, begin + step)))


def read_directions(
    base: Checkpoint, opened: "OpenWeight", numbers: Sequence[int], known: dict[TensorInfo, OpenLens] | None = None
) -> list[Reading]:
    """Return directions of one weight read through base's vocabulary.

    Parameters
    ----------
    base : Checkpoint
        Whose vocabulary it is.
    opened : OpenWeight
        The weight.
    numbers : sequence of int
        Which directions, from 1 on.
    known : dict, optional
        What was read through before, by table; more is put there.

    Raises
    ------
    LensError
        If directions of the weight cannot be read.
    SpectrumError
        If one is not there, or has a singular value of zero.
    """
    lens = find_lens(base, opened.weight)
    there = int(np.count_nonzero(opened.measured.s))
    if max(numbers, default=0) > there:
        raise SpectrumError(f"{opened.weight.name} has {there} directions that are not zero, and no {max(numbers)}")
    vectors = [opened.vectors(number)["uv".index(lens.side)] for number in numbers]
    at = ({} if known is None else known).setdefault(lens.table, OpenLens(lens))
    return at.read(lens, numbers, np.stack(vectors, 1)) if numbers else []


def lens_table(pair: CheckpointPair, plan: RepairPlan, weights: Sequence[Weight], device: str = "auto") -> Table:
    """Return the strongest directions that a plan keeps and drops of some weights, read through base's vocabulary.

    Parameters
    ----------
    pair : CheckpointPair
        Whose weights they are.
    plan : RepairPlan
        What is done with the pair; of a method that keeps no directions the strongest ones are read.
    weights : sequence of Weight
        Which weights; one that cannot be read has a row that says why.
    device : str
        Where their updates are decomposed.

    Returns
    -------
    Table
        A row for each direction; none where base has no tokens.
    """
    from dgviz.spectra.open_weight import OpenWeight  # torch

    rows, known = [], {}
    for weight in weights if vocabulary_tables(pair.base) else ():
        opened = OpenWeight(weight, device)
        try:
            chosen = _strongest_of(plan.at(weight.tensor, weight.index), opened)
            for reading in read_directions(pair.base, opened, list(chosen), known):
                ends = (" ".join(map(str, end[:_SHOWN])) for end in (reading.plus, reading.minus))
                place = weight.name, reading.number, chosen[reading.number], reading.about
                beside = BESIDE_NOISE[reading.stands_out]
                values = *place, *ends, reading.strongest, reading.chance.high, beside
                rows.append(dict(zip(_COLUMNS, values, strict=True)))
        except (LensError, SpectrumError) as error:
            rows.append(dict.fromkeys(_COLUMNS) | {"weight": weight.name, "reading": str(error)})
    return Table.of("lens", rows)


def _strongest_of(own: RepairPlan, opened: "OpenWeight") -> dict[int, str]:
    """Return the strongest directions that are kept and those that are dropped, by number and in order."""
    spectrum = opened.spectrum_with(own.rule, own.params)
    there = spectrum.s > 0
    if own.keep or not own.recipe.has_factors:
        return dict.fromkeys(range(1, 1 + min(_STRONGEST, int(there.sum()))), "")
    values = own.reshape(spectrum, tensor=opened.weight.tensor.name, delta=lambda: opened.delta).values
    parts = {"kept": there & (values > 0), "dropped": there & (values == 0)}
    return {int(place) + 1: word for word, part in parts.items() for place in np.flatnonzero(part)[:_STRONGEST]}
