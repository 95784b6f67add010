"""Load a checkpoint with transformers and say which keys did not fit.

``python -m dgviz.export.reload DIR [REFERENCE [PLAN DEVICE]]`` imports what the config in the folder asks for, waits
for a line of input, then loads and prints one line of JSON; with a pickled export plan, where every key fits, also
what `dgviz.export.logits` finds. What the logits should be is found out while it waits, on a CPU and where nothing
has to be decomposed for it: else it would take from the writing process what that needs.

A process of its own, unless transformers is there already: it takes seconds and memory, and what it thinks of a model
must not end an export.
Weights go to torch's meta device, so that a model of any size is loaded in the memory of its headers.
"""

import gc
import json
import logging
import pickle
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgviz.device import is_gpu
from dgviz.packages import is_installed
from dgviz.words import some

if TYPE_CHECKING:  # they need torch
    from dgviz.export.logits import Expected
    from dgviz.export.plan import ExportPlan

KINDS = {"missing": "missing_keys", "unexpected": "unexpected_keys", "mismatched": "mismatched_keys"}


def find_model_class(directory: Path) -> tuple[Any, str]:
    """Return transformers' class for a checkpoint, or None and the reason."""
    if not is_installed("transformers"):
        return None, "transformers is not installed (the extra `models` of dgviz brings it)"
    import transformers

    config = json.loads((directory / "config.json").read_bytes())
    known = config.get("model_type") in transformers.CONFIG_MAPPING
    architecture = (config.get("architectures") or [""])[0]
    kind = getattr(transformers, str(architecture), None)
    if known and isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return kind, ""
    if "auto_map" in config:
        return None, "the model brings its own code (auto_map), which is not run"
    if not known:
        return None, f"transformers {transformers.__version__} knows no model_type {config.get('model_type')!r}"
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
    found = {short: sorted(str(_key(item)) for item in info.get(key) or ()) for short, key in KINDS.items()}
    return {"class": kind.__name__, **found}


def _key(item: Any) -> Any:
    """Return the key of an entry, which for mismatches comes with two shapes."""
    return item[0] if isinstance(item, tuple) else item


def compare(directory: Path, reference: Path | None) -> dict[str, Any]:
    """Return what loading a checkpoint gave; ``as_in_tuned`` are the keys that do not fit in its reference either."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = load(directory)
            if reference is not None and any(outcome.get(kind) for kind in KINDS):
                other = load(reference)
                known = {kind: set(other.get(kind, ())) & set(outcome[kind]) for kind in KINDS}
                outcome["as_in_tuned"] = sorted(set().union(*known.values()))
    finally:
        logging.disable(before)
    return outcome


def incomparable(outcome: Mapping[str, Any]) -> str:
    """Return why a loaded model's logits say nothing; empty where they do."""
    random = sum(len(outcome.get(kind, ())) for kind in ("missing", "mismatched"))
    return outcome.get("skipped") or (
        f"{random} keys are missing or mismatched and would be random" if random else ""
    )


def load_words(outcome: Mapping[str, Any]) -> str:
    """Return in words which keys did not fit, and which of them do not fit in tuned either."""
    counts = {kind: len(outcome[kind]) for kind in KINDS}
    if not any(counts.values()):
        return f"loaded as {outcome['class']} with no missing, unexpected or mismatched keys"
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    named = "; ".join(f"{kind}: {some(outcome[kind])}" for kind, count in counts.items() if count)
    text = f"loaded as {outcome['class']} with {listed} keys ({named})."
    if counts["missing"] or counts["mismatched"]:
        text += " What is missing or mismatched has random values in a model loaded like that."
    known = len(outcome.get("as_in_tuned", ()))
    every = known == len({key for kind in KINDS for key in outcome[kind]})
    return f"{text} {'All' if every else known} of these keys are as in tuned." if known else text


class LogitsCheck:
    """The comparison of an output's logits, as far as it can be made before the output is there.

    Parameters
    ----------
    directory : Path
        Where the output will be; its config is there.
    plan : Path
        The pickled export plan.
    device : str
        Where the expected model is computed.
    """

    def __init__(self, directory: Path, plan: Path, device: str) -> None:
        self._directory, self._device = directory, device
        self._plan: ExportPlan = pickle.loads(plan.read_bytes())
        self._expected: Expected | None = None

    def expect(self) -> None:
        """Find out what the logits should be, where that is not much work beside that of the writing process."""
        plan = self._plan
        kind, _ = find_model_class(self._directory)
        own = (each for paired in plan.pair.tensors for each in plan.repair.each(paired))
        if kind is None or is_gpu(self._device) or any(each.recipe.decomposes and not each.keep for each in own):
            return
        from dgviz.export.logits import configured_dtype, expect_logits

        dtype = configured_dtype(kind, self._directory)
        if dtype is not None:
            self._expected = expect_logits(plan, kind, dtype, self._device)

    def run(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Return what loading gave and how the output's logits compare, with the seconds that took from now on."""
        reason = incomparable(outcome)
        if reason:
            return {**outcome, "logits": {"skipped": reason}, "seconds": 0.0}
        started = time.perf_counter()
        from dgviz.export.logits import compare_logits

        kind, _ = find_model_class(self._directory)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logits = compare_logits(self._plan, self._directory, kind, self._device, self._expected)
        except Exception as error:  # whatever transformers raises at a model it cannot run here
            cause = " ".join(str(error).split())[:300]
            logits = {"skipped": f"it could not be run ({type(error).__name__}: {cause})"}
        return {**outcome, "logits": logits, "seconds": time.perf_counter() - started}


def main(arguments: list[str]) -> None:
    """Get ready, wait for a line, and print what loading gave as one line of JSON."""
    directory, *paths = map(Path, arguments[:3])
    gc.disable()  # an eighth of the time that the import takes
    with suppress(Exception):  # what is wrong is said when it is loaded
        find_model_class(directory)
    gc.freeze()  # and most of the time at the end
    gc.enable()
    check = LogitsCheck(directory, paths[1], arguments[3]) if len(arguments) > 3 else None
    if check is not None:
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check.expect()
    if sys.stdin.readline():  # else whoever wanted to know has gone
        outcome = compare(directory, paths[0] if paths else None)
        print(json.dumps(outcome if check is None else check.run(outcome)))


if __name__ == "__main__":
    main(sys.argv[1:])
