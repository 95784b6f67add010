"""Load a checkpoint with transformers and say which keys did not fit.

``python -m dgviz.export.reload DIR [REFERENCE]`` prints one line of JSON.

A process of its own, unless transformers is there already: it takes seconds and memory, and what it thinks of a model
must not end an export.
Weights go to torch's meta device, so that a model of any size is loaded in the memory of its headers.
"""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

_KINDS = {"missing": "missing_keys", "unexpected": "unexpected_keys", "mismatched": "mismatched_keys"}


def find_model_class(directory: Path) -> tuple[Any, str]:
    """Return transformers' class for a checkpoint, or None and the reason."""
    import transformers

    config = json.loads((directory / "config.json").read_bytes())
    if "auto_map" in config:
        return None, "the model brings its own code (auto_map), which is not run"
    if config.get("model_type") not in transformers.CONFIG_MAPPING:
        return None, f"transformers {transformers.__version__} knows no model_type {config.get('model_type')!r}"
    architecture = (config.get("architectures") or [""])[0]
    kind = getattr(transformers, str(architecture), None)
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return kind, ""
    settings = transformers.CONFIG_MAPPING[config["model_type"]]
    return transformers.MODEL_MAPPING.get(settings), f"transformers has no class for {architecture!r}"


def load(directory: Path) -> dict[str, Any]:
    """Return the class and the keys that did not fit, or why it was not loaded."""
    try:
        kind, reason = find_model_class(directory)
        if kind is None:
            return {"skipped": reason}
        _, info = kind.from_pretrained(
            directory,
            output_loading_info=True,
            device_map="meta",
            local_files_only=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # whatever transformers raises at a model it cannot build
        cause = " ".join(str(error).split())[:300]
        return {"skipped": f"transformers cannot build this model ({type(error).__name__}: {cause})"}
    found = {short: sorted(str(_key(item)) for item in info.get(key) or ()) for short, key in _KINDS.items()}
    return {"class": kind.__name__, **found}


def _key(item: Any) -> Any:
    """Return the key of an entry, which for mismatches comes with two shapes."""
    return item[0] if isinstance(item, tuple) else item


def compare(directory: Path, reference: Path | None) -> dict[str, Any]:
    """Return what loading a checkpoint gave, without the keys that its reference lacks or has too many as well."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = load(directory)
            if reference is not None and any(outcome.get(kind) for kind in _KINDS):
                other = load(reference)
                for kind in _KINDS:
                    known = set(other.get(kind, ()))
                    outcome["as_in_tuned"] = sorted({*outcome.get("as_in_tuned", ()), *known & set(outcome[kind])})
                    outcome[kind] = [key for key in outcome[kind] if key not in known]
    finally:
        logging.disable(before)
    return outcome


def main(arguments: list[str]) -> None:
    """Print what loading gave as one line of JSON."""
    print(json.dumps(compare(Path(arguments[0]), Path(arguments[1]) if len(arguments) > 1 else None)))


if __name__ == "__main__":
    main(sys.argv[1:])
