"""Vocabularies that differ: which rows of an embedding or output head belong to the same token on both sides."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgviz.checkpoint.derived import matrix_rows
from dgviz.checkpoint.descent import measure_descent
from dgviz.checkpoint.documents import config_sections, parse_json_object, read_document
from dgviz.checkpoint.sample import TENSOR_BYTES
from dgviz.checkpoint.selection import runs
from dgviz.checkpoint.types import Checkpoint, TensorInfo
from dgviz.errors import CheckpointError

MAX_TOKENIZER_BYTES = 256_000_000
"""Real ones reach 33 MB; beyond this the file is no tokenizer."""

# Printable bytes stand for themselves, the others for the letters from 256 on, in order.
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_LETTERS = {chr(byte): byte for byte in _PRINTED}
_LETTERS |= {chr(256 + place): byte for place, byte in enumerate(sorted(set(range(256)) - set(_PRINTED)))}
_SURE = 0.3  # correlation that shows two sets of rows to be one
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Vocabularies:
    """The vocabulary of each side: its sizes as the config states them, and its tokens by id where known.

    `agreed` are lengths in base and tuned of matrices whose common rows agree: a bias of these lengths goes along.

    Two tensors that differ in their first axis are one with new rows where the configs state both lengths, or where
    the rows that both have agree: embeddings, heads, their biases and tables of positions, whatever they are called.

    `tokens` is None unless both sides have a ``tokenizer.json``: then rows are taken to mean the same token in both,
    which is how transformers and every common tool grow a vocabulary (at the end).
    """

    sizes: tuple[frozenset[int], frozenset[int]]
    agreed: frozenset[tuple[int, int]]
    tokens: tuple[dict[int, str], dict[int, str]] | None

    def common_rows(self, base: TensorInfo, tuned: TensorInfo) -> Ranges | None:
        """Return the ranges (begin, end) of rows that both have for the same token."""
        shapes = base.shape, tuned.shape
        if not all(shapes) or shapes[0][1:] != shapes[1][1:]:
            return None
        count = min(base.shape[0], tuned.shape[0])
        stated = all(shape[0] in sizes for shape, sizes in zip(shapes, self.sizes, strict=True))
        if not stated and (base.shape[0], tuned.shape[0]) not in self.agreed:
            return None
        if not self.by_token(base, tuned):
            return ((0, count),)
        first, second = self.tokens
        return tuple(runs(row for row in range(count) if first.get(row) == second.get(row)))

    def by_token(self, base: TensorInfo, tuned: TensorInfo) -> bool:
        """Say whether rows are matched by token: both tokenizers are known, and every token has a row."""
        if self.tokens is None:
            return False
        return all(max(own, default=0) < info.shape[0] for own, info in zip(self.tokens, (base, tuned), strict=True))


def _agree(base: TensorInfo, tuned: TensorInfo) -> bool:
    """Say whether the rows that two tensors have in common are the same numbers, moved by fine-tuning perhaps."""
    count = min(base.shape[0], tuned.shape[0])
    if not (base.is_floating and tuned.is_floating and count):
        return False
    found = measure_descent(matrix_rows(base, 0, count), matrix_rows(tuned, 0, count), TENSOR_BYTES // 8)
    return found is not None and found.correlation >= _SURE


def read_vocabularies(
    base: Checkpoint, tuned: Checkpoint, pairs: Iterable[tuple[TensorInfo, TensorInfo]]
) -> Vocabularies:
    """Read what config.json and tokenizer.json say of both vocabularies, and what the matched tensors show."""
    other = [(a, b) for a, b in pairs if a.shape != b.shape and a.shape[1:] == b.shape[1:] and len(a.shape) > 1]
    agreed = frozenset((a.shape[0], b.shape[0]) for a, b in other if _agree(a, b))
    tokens = _read_tokens(base.path), _read_tokens(tuned.path)
    sizes = _sizes(base.config), _sizes(tuned.config)
    return Vocabularies(sizes, agreed, None if tokens[0] is None or tokens[1] is None else (tokens[0], tokens[1]))


def _sizes(config: Mapping[str, Any]) -> frozenset[int]:
    stated = (section.get("vocab_size") for section in config_sections(config).values())
    return frozenset(value for value in stated if type(value) is int)


def _read_tokens(directory: Path) -> dict[int, str] | None:
    """Return a tokenizer's tokens by id; None where there is no tokenizer.json."""
    content = _read_tokenizer(directory)
    return None if content is None else _tokens(content, directory)


def read_texts(directory: Path) -> dict[int, str] | None:
    """Return what a tokenizer's tokens stand for in a text, by id; None where there is no tokenizer.json.

    A token that is part of a character stays as it is spelled in the file.
    """
    content = _read_tokenizer(directory)
    if content is None:
        return None
    spelled = '"ByteLevel"' in json.dumps([content.get("decoder"), content.get("pre_tokenizer")])
    read = _of_bytes if spelled else lambda token: token.replace("▁", " ")
    return {number: read(token) for number, token in _tokens(content, directory).items()}


def _of_bytes(token: str) -> str:
    """Return the text of a token that stands for bytes, a letter each, as GPT-2's do."""
    try:
        return bytes(_LETTERS[letter] for letter in token).decode()
    except (KeyError, UnicodeDecodeError):
        return token


def _read_tokenizer(directory: Path) -> dict[str, Any] | None:
    file = directory / "tokenizer.json"
    try:
        raw = read_document(file, MAX_TOKENIZER_BYTES, "tokenizer")
    except FileNotFoundError:
        return None
    return parse_json_object(raw, str(file))


def _tokens(content: dict[str, Any], directory: Path) -> dict[int, str]:
    try:
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            tokens = {_id(number): str(token) for token, number in vocabulary.items()}
        else:
            tokens = {number: str(entry[0]) for number, entry in enumerate(vocabulary)}
        return tokens | {_id(entry["id"]): str(entry["content"]) for entry in content.get("added_tokens") or []}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"{directory / 'tokenizer.json'} lists no tokens with their ids ({type(error).__name__}: {error}): fetch "
            "it again, or remove it on both sides where the ids are known to agree"
        ) from error


def _id(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no token id")
    return value
