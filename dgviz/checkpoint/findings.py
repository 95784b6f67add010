"""What is surprising about a pair and known from names, headers and configs: one function per finding.

Each takes a pair and returns its notices, none where there is nothing to say. `FINDINGS` is the list; the preflight
asks all of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from dgviz.checkpoint.ancestry import find_ancestry
from dgviz.checkpoint.documents import config_sections
from dgviz.checkpoint.lora.config import CONFIG, PICKLED, WEIGHTS
from dgviz.checkpoint.lora.tensor import LoraStack, LoraTensor
from dgviz.checkpoint.module_path import HEAD, module_path
from dgviz.checkpoint.quantised import BlockFloat8, MicroscaledFloat4, PlainFloat8
from dgviz.checkpoint.tied import is_embedding, is_head, tied_embedding, ties
from dgviz.checkpoint.types import INFO, WARNING, Checkpoint, CheckpointPair, Notice, PairedTensor
from dgviz.words import some

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def find_base_only(pair: CheckpointPair) -> list[Notice]:
    """Tell of tensors that only base has: they are not written."""
    rows = [row for row in pair.tensors if row.tuned is None and row.via != "tied"]
    message = "{tensors} only in base and will not be in the repaired model: {names}."
    remedy = (
        "Right where fine-tuning dropped them (heads that predict further tokens, say). Otherwise the two sides are "
        "named differently, or tuned is not complete."
    )
    return _tell("base_only", WARNING, message, remedy, rows)


def find_tuned_only(pair: CheckpointPair) -> list[Notice]:
    """Tell of tensors that only tuned has: they are copied as they are."""
    rows = [row for row in pair.tensors if row.base is None]
    message = "{tensors} only in tuned and will be copied as in tuned: {names}."
    remedy = "Right for parts that fine-tuning added. Otherwise the two sides are named differently."
    return _tell("tuned_only", WARNING, message, remedy, rows)


def find_open_layouts(pair: CheckpointPair) -> list[Notice]:
    """Tell of tensors that may be stacks or kernels: they are copied as they are."""
    rows = [row for row in pair.tensors if row.cause == "layout"]
    message = (
        "{tensors} of three dimensions, and nothing tells whether stacks or kernels; copied from tuned: {names}."
    )
    return _tell("layout", WARNING, message, "Their update stays in the model as it is.", rows)


def find_renamed(pair: CheckpointPair) -> list[Notice]:
    """Tell of tensors whose two sides have different names."""
    notices = []
    for via, code, words in (
        ("wrapped", "unwrapped", "after prefixes of training wrappers were taken off"),
        ("aligned", "aligned", "by their places under other modules, where names, shapes and weights agree"),
        ("renamed", "renamed", "by transformers' own table of renamings"),
        ("experts", "experts", "because one side stores the experts of a layer as a stack and the other one by one"),
    ):
        rows = [row for row in pair.tensors if row.via == via]
        message = f"{len(rows)} of {len(pair.tensors)} tensors matched only {words}: {{names}}."
        notices += _tell(
            code,
            INFO,
            message,
            "Compare a few names in the table; the output has tuned's names, without wrappers.",
            rows,
        )
    return notices


def find_tied_heads(pair: CheckpointPair) -> list[Notice]:
    """Tell of an output head that is one tensor with its embedding, or that the config takes for one."""
    before = tied_embedding(pair.base)
    if pair.tuned.is_adapter and before and ties(pair.tuned.config) is False:
        message = f"The adapter changes only one of {before} and the head that base ties to it, or both differently."
        remedy = (
            'They are written as two tensors, as PEFT runs them, and the config says "tie_word_embeddings": false.'
        )
        return [Notice("untied_by_adapter", WARNING, message, remedy, (before,))]
    rows = [row for row in pair.tensors if row.via == "tied"]
    if rows:
        message = "{tensors} one with an embedding it is tied to: {names}."
        remedy = "Nothing to do: what is stored more than once is written bit for bit the same."
        return _tell("tied_head", INFO, message, remedy, rows)
    embedding = tied_embedding(pair.tuned)
    if embedding is None:
        return []
    shape = pair.tuned.tensors[embedding].shape
    others = [row for row in pair.tensors if row.tuned is not None and row.name != embedding]
    heads = [
        row
        for row in others
        if is_head(row.name) or (row.tuned.shape == shape and module_path(row.name).kind == HEAD)
    ]
    if heads:
        message = (
            f"The config of tuned ties the head to {embedding}, but {heads[0].name} holds other numbers: loaders "
            "disagree which of them to use."
        )
        remedy = 'Set "tie_word_embeddings": false in the config of tuned if the two are meant to differ.'
        return [Notice("untied_head", WARNING, message, remedy, tuple(row.name for row in heads))]
    message = f"The output head is tied to {embedding}: one tensor that serves as both, repaired once."
    return [Notice("tied_head", INFO, message, f"To keep the head as tuned, exclude {embedding}.", (embedding,))]


def find_vocabulary(pair: CheckpointPair) -> list[Notice]:
    """Tell of a vocabulary that differs, and how its rows were matched."""
    rows = [row for row in pair.tensors if row.cause in ("vocabulary", "tokens")]
    if not rows:
        return []
    first = rows[0]
    before, after = pair.base.tensors[first.base.name].shape[0], first.tuned.shape[0]
    common = first.base.shape[0] if first.cause == "vocabulary" else 0
    lacking = _sides(pair, lambda side: not _has(side, ("tokenizer.json",)))
    message = (
        f"The vocabulary has {before} tokens in base and {after} in tuned: {common} rows of {{names}} are matched "
        f"{'by their position' if lacking else 'by tokenizer.json'} and repaired, the others copied from tuned."
    )
    remedy = "Check that the number of matched rows is plausible."
    if lacking:
        remedy = f"Put the tokenizer.json of {lacking} beside the weights, so that rows are matched by token."
    return _tell("vocabulary", WARNING, message, remedy, rows)


def find_stale_vocabulary(pair: CheckpointPair) -> list[Notice]:
    """Tell of a vocab_size in a config that no embedding has."""
    notices = []
    for side, checkpoint in (("base", pair.base), ("tuned", pair.tuned)):
        sizes = {section.get("vocab_size") for section in config_sections(checkpoint.config).values()} - {None}
        embeddings = [info for info in checkpoint.tensors.values() if is_embedding(info.name)]
        if sizes and embeddings and not any(info.shape[0] in sizes for info in embeddings if info.shape):
            first = embeddings[0]
            message = (
                f"The config of {side} says vocab_size = {some(sorted(map(str, sizes)))}, and {first.name} has "
                f"{first.shape[0]} rows: the entry is stale."
            )
            remedy = (
                f"Set vocab_size to {first.shape[0]} in {checkpoint.path / 'config.json'}: loaders refuse the file."
            )
            notices.append(Notice("stale_vocabulary", WARNING, message, remedy, (first.name,)))
    return notices[-1:]


def find_missing_files(pair: CheckpointPair) -> list[Notice]:
    """Tell of a config, tokenizer or processor that a side lacks."""
    notices = []
    lacking = _sides(pair, lambda side: not side.config)
    if lacking:
        remedy = "Put it beside the weights: without it names, vocabulary and tied heads are compared less well"
        remedy += "." if pair.base.config or pair.tuned.config else ", and transformers cannot load the output."
        notices.append(Notice("missing_config", WARNING, f"There is no config.json in {lacking}.", remedy))
    for code, what, names in (("tokenizer", "tokenizer", _TOKENIZERS), ("processor", "image processor", _PROCESSORS)):
        has = _has(pair.base, names), _has(pair.tuned, names)
        if has == (True, False) and not pair.tuned.is_adapter:
            message = f"There is no {what} beside tuned; the output takes base's."
            remedy = f"Copy the {what}'s files into tuned's folder if fine-tuning changed it."
            notices.append(Notice(f"missing_{code}", WARNING, message, remedy))
        elif has == (False, False) and code == "tokenizer" and _has_tokens(pair):
            message = "There is no tokenizer beside base or tuned, so there will be none beside the output."
            remedy = "Copy the tokenizer's files into tuned's folder."
            notices.append(Notice("missing_tokenizer", WARNING, message, remedy))
    return notices


def find_dtypes(pair: CheckpointPair) -> list[Notice]:
    """Tell of weights that the two sides store with different precision."""
    rows = [row for row in pair.repairable if row.base.dtype != row.tuned.dtype]
    kinds = Counter((row.base.dtype, row.tuned.dtype) for row in rows)
    shown = ", ".join(f"{base} in base and {tuned} in tuned ({count})" for (base, tuned), count in kinds.items())
    message = f"{len(rows)} tensors to be repaired differ in dtype: {shown}."
    remedy = (
        "The coarser side's rounding is part of every difference and can look like noise: where there is a base in "
        "the dtype that tuned was trained from, give that."
    )
    return _tell("dtypes", WARNING, message, remedy, rows)


def find_dequantised(pair: CheckpointPair) -> list[Notice]:
    """Tell of a base that is stored as codes and read as what they stand for."""
    rows = [row for row in pair.tensors if _stored_as(row)]
    if not rows:
        return []
    formats = " and ".join(sorted(set(map(_stored_as, rows))))
    message = f"{len(rows)} tensors of base are stored as {formats} and read as {rows[0].base.dtype}."
    remedy = "Right where tuned was trained from this quantised base; otherwise give the base it was trained from."
    return _tell("dequantised", WARNING, message, remedy, rows)


def find_adapter(pair: CheckpointPair) -> list[Notice]:
    """Tell of a tuned side that is an adapter."""
    if not pair.tuned.is_adapter:
        return []
    rows = [row for row in pair.tensors if isinstance(row.tuned, LoraTensor | LoraStack)]
    message = (
        f"Tuned is a LoRA adapter: base plus low-rank updates of {len(rows)} tensors; all others are base's own."
    )
    remedy = "An update of exact low rank has no noise to estimate: rules that look for it keep everything."
    return [Notice("adapter", INFO, message, remedy, tuple(row.name for row in rows))]


def find_adapter_beside(pair: CheckpointPair) -> list[Notice]:
    """Tell of an adapter beside a model's own weights, which loaders put onto them."""
    sides = _sides(
        pair, lambda side: not side.is_adapter and _has(side, (CONFIG,)) and _has(side, (WEIGHTS, PICKLED))
    )
    if not sides:
        return []
    message = (
        f"An adapter ({CONFIG} and its weights) lies beside the model of {sides}: read is the model alone, while "
        "transformers' from_pretrained loads the adapter onto it."
    )
    remedy = (
        "If the adapter is merged into the model, remove its two files; if not, merge it, or give the model as base "
        "and the two files in a folder of their own as tuned."
    )
    return [Notice("adapter_beside", WARNING, message, remedy)]


def find_config_code(pair: CheckpointPair) -> list[Notice]:
    """Tell of a config that refers to code of its own."""
    sides = _sides(pair, lambda side: "auto_map" in side.config)
    message = f"The config of {sides} refers to code of its own (auto_map), which is never run."
    remedy = "Names are compared by transformers' own class, if any. Copy the *.py files yourself if you trust them."
    return [Notice("own_code", WARNING, message, remedy)] if sides else []


_IGNORED = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map", "quantization_config"}
_IGNORED |= {"use_cache", "transformers_weights", "vocab_size", "_attn_implementation", "_diffusers_version"}
_STRUCTURE = ("model_type", "architectures", "hidden", "layers", "heads", "size", "dim", "experts", "tie_", "rank")


def find_config(pair: CheckpointPair) -> list[Notice]:
    """Tell of settings that both configs state, and state differently."""
    if pair.tuned.is_adapter:
        return []
    before, after = _settings(pair.base.config), _settings(pair.tuned.config)
    different = {key: (before[key], after[key]) for key in before if key in after and before[key] != after[key]}
    notices = []
    for code, severity, remedy in (
        ("config_structure", WARNING, "Check that this is the base that tuned was trained from."),
        ("config_settings", INFO, "The output has tuned's config."),
    ):
        mine = {key: both for key, both in different.items() if _is_structure(key) == (severity == WARNING)}
        if mine:
            shown = "; ".join(
                f"{key} is {_short(a)} in base and {_short(b)} in tuned" for key, (a, b) in mine.items()
            )
            notices.append(Notice(code, severity, f"The configs differ: {shown}.", remedy))
    return notices


FINDINGS: tuple[Callable[[CheckpointPair], list[Notice]], ...] = (
    find_ancestry,
    find_config,
    find_vocabulary,
    find_stale_vocabulary,
    find_missing_files,
    find_dtypes,
    find_dequantised,
    find_base_only,
    find_tuned_only,
    find_open_layouts,
    find_config_code,
    find_adapter,
    find_adapter_beside,
    find_renamed,
    find_tied_heads,
)
"""Every finding, in the order in which notices of one severity are shown."""


def _is_structure(key: str) -> bool:
    return any(part in key.rpartition(".")[2] for part in _STRUCTURE)


def _settings(config: object, prefix: str = "") -> dict[str, object]:
    """Return a config's values by their path: ``text_config.hidden_size``."""
    found: dict[str, object] = {}
    for key, value in config.items() if isinstance(config, dict) else ():
        if key in _IGNORED:
            continue
        if isinstance(value, dict):
            found |= _settings(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _stored_as(row: PairedTensor) -> str:
    """Return what a row's base is dequantised from, or an empty string; rows picked of one count too."""
    parts = [row.base, *getattr(row.base, "parts", ())]
    kinds = {BlockFloat8: "FP8", PlainFloat8: "FP8 without scales", MicroscaledFloat4: "MXFP4"}
    return next((name for kind, name in kinds.items() for part in parts if isinstance(part, kind)), "")


def _sides(pair: CheckpointPair, condition: Callable[[Checkpoint], bool]) -> str:
    """Return which sides meet a condition: base, tuned, base and tuned, or nothing."""
    return " and ".join(name for name, side in (("base", pair.base), ("tuned", pair.tuned)) if condition(side))


def _has(checkpoint: Checkpoint, names: Iterable[str]) -> bool:
    return any(Path(checkpoint.path, name).is_file() for name in names)


def _has_tokens(pair: CheckpointPair) -> bool:
    return any("vocab_size" in section for section in config_sections(pair.tuned.config or pair.base.config).values())


def _tell(code: str, severity: str, message: str, remedy: str, rows: list[PairedTensor]) -> list[Notice]:
    """Return a notice of some rows, none where there are none; ``{tensors}`` and ``{names}`` stand for them."""
    if not rows:
        return []
    tensors = f"{len(rows)} tensors are" if len(rows) > 1 else "1 tensor is"
    names = tuple(row.name for row in rows)
    return [Notice(code, severity, message.format(tensors=tensors, names=some(names)), remedy, names)]
