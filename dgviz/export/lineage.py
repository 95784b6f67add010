"""What an output descends from and what its inputs' own cards say of them: names on the hub, tags, licence."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dgviz.checkpoint import Checkpoint, CheckpointPair
from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, open_own, opened_path, read_document
from dgviz.checkpoint.hub import HUB_ID
from dgviz.errors import CheckpointError

_LICENCE = "license", "license_name", "license_link"
_MINE = ["dgviz", "svd", "weight-repair"]
_ABOUT_ADAPTERS = {"lora", "peft"}


def base_id(pair: CheckpointPair, given: str = "") -> str | None:
    """Return what base is called on the hub, or None.

    As the user says; else as tuned's own card does, its adapter's config, or the Hugging Face cache with base in it.
    """
    card = [given] if given else _listed(card_header(pair.tuned).get("base_model"))
    named = [name for name in (*card, *_adapter_base(pair.tuned)) if _is_hub_name(name)]
    return named[0] if named else hub_name(pair.base)


def _adapter_base(tuned: Checkpoint) -> list[str]:
    """Return what an adapter's config calls its base."""
    try:
        config = json.loads(read_document(tuned.path / "adapter_config.json", MAX_CONFIG_BYTES, "config"))
        return _listed(config.get("base_model_name_or_path"))
    except (CheckpointError, OSError, ValueError, AttributeError, RecursionError):
        return []


def hub_name(checkpoint: Checkpoint) -> str | None:
    """Return the hub id of a checkpoint that lies in the Hugging Face cache, or None."""
    for folder in checkpoint.path.parents:
        if folder.name.startswith("models--"):
            return folder.name.removeprefix("models--").replace("--", "/")
    return None


def _is_hub_name(name: str) -> bool:
    """Return whether a name is one of the hub; a trainer may name a path of another machine."""
    found = HUB_ID.fullmatch(name)
    return found is not None and not found["revision"] and ".." not in name


def ancestors(pair: CheckpointPair, given: str = "") -> list[str]:
    """Return the names on the hub of base and tuned, as far as they are known."""
    return list(dict.fromkeys(filter(None, (base_id(pair, given), hub_name(pair.tuned)))))


def card_header(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the header of a checkpoint's own card; empty where there is none, or it is no YAML."""
    try:
        with opened_path(open_own(checkpoint.path / "README.md")) as card:
            from huggingface_hub import metadata_load  # half a second, which most outputs need not spend

            found = metadata_load(card)
    except Exception:  # whatever the parser raises: such a header says nothing
        return {}
    return found if isinstance(found, dict) else {}


def described(pair: CheckpointPair, output: str) -> dict[str, Any]:
    """Return what an output's card takes from its inputs' cards: tags, languages, pipeline, library, licence."""
    tuned, base = card_header(pair.tuned), card_header(pair.base)
    merged = pair.tuned.is_adapter and output == "full"
    whole = base if merged else tuned  # an adapter's card speaks of the adapter
    tags = [tag for tag in _listed(tuned.get("tags")) if not tag.startswith("base_model:")]
    tags = [tag for tag in tags if tag not in _ABOUT_ADAPTERS] if merged else tags
    own = [*_MINE, *(["lora"] if output == "lora" else [])]
    libraries = {"full": whole.get("library_name") or "transformers", "lora": "peft"}
    found = {
        "tags": list(dict.fromkeys([*tags, *own])),
        "language": tuned.get("language") or base.get("language"),
        "pipeline_tag": tuned.get("pipeline_tag") or base.get("pipeline_tag"),
        "library_name": libraries.get(output),
    }
    licence = next((header for header in (tuned, base) if header.get("license")), {})
    found |= {key: str(licence[key]) for key in _LICENCE if licence.get(key)}
    return {key: value for key, value in found.items() if value}


def _listed(value: Any) -> list[str]:
    """Return the texts of a value that is one, or a list of them."""
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str) and item]
