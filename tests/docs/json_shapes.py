"""The keys of every command's --json, from running it on a part of the demo, with what the docstrings say of them."""

import ast
import contextlib
import io
import json
import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dgviz
from dgviz.cli import main

SELECTED = r"layer\.0\.attention\.output\.dense\.weight$|classifier\.weight$"
"""Two matrices are enough to see every key."""
EXAMPLES = {
    "demo": "demo pair",
    "inspect": "inspect pair/base pair/noisy",
    "spectrum": "spectrum pair/base pair/noisy classifier.weight",
    "scan": "scan pair/base pair/noisy --workers 1",
    "noise": "noise pair/base pair/noisy",
    "thresholds": "thresholds pair/base pair/noisy",
    "family": "family pair/base pair/noisy pair/noisy --names one,other --workers 1",
    "repair": "repair pair/base pair/noisy repaired",
    "compare-methods": "compare-methods pair/base pair/noisy --methods wise_ft",
    "sweep": "sweep pair/base pair/noisy --methods wise_ft",
    "study": "study study.json --new",
    "recovery": "recovery pair/scores.json --bootstrap 2",
}

SHARED = {
    "diagnosis": {"verdict", "reasons", "advice", "flags"},
    "plan": {"rule", "params", "include", "exclude", "dtype", "method"},
    "noise row": {"group", "mean_noise", "norm_share"},
    "entries": {"relative_size", "zero_share", "kurtosis"},
    "overlap": {"value", "chance", "spread"},
    "metric": {"value", "interval", "undefined_replicates"},
    "mp_fit": {"tuned", "repaired", "discarded", "discarded_own", "noise"},
    "report": {"dgviz", "torch", "format", "overall"},
    "side": {"name", "files", "adapter"},
    "score": {"score", "stderr", "n"},
    "repair metrics": {"healed", "by_size", "sensitivity"},
}
"""Objects that occur in several places, described once, and the keys they are known by."""
NAMED = {
    "weights": "TENSOR",
    "tensors": "TENSOR",
    "inputs": "TENSOR",
    "errors": "TENSOR",
    "files": "FILE",
    "sidecars": "FILE",
    "left_behind": "FILE",
    "repaired": "REPAIR",
    "controls": "REPAIR",
    "cells": "CELL",
    "cohorts": "COHORT",
    "models": "CELL",
    "causes": "CAUSE",
    "params": "PARAMETER",
    "method_params": "PARAMETER",
    "of": "BENCHMARK",
}
"""Objects whose keys are names and not words of the format, and what the names are of."""


def run(command: str, folder: Path) -> Any:
    """Return what a command prints with --json."""
    words = [*command.split(), "--json"]
    if words[1] == "pair/base":
        words += ["--include", SELECTED] if words[0] != "spectrum" else []
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main(words) == 0, command
    return json.loads(out.getvalue())


class Shapes:
    """The keys of JSON values, gathered path by path."""

    def __init__(self, shared: "dict[str, Shapes]") -> None:
        self.types: dict[str, set[str]] = {}
        self.siblings: dict[str, frozenset[str]] = {}
        self.shared = shared

    def add(self, value: Any, path: str = "", key: str = "") -> None:
        """Add a value at a path; `key` is what it is called."""
        shared = self._shared(value)
        if shared is not None:
            self.types.setdefault(path, set()).add(f"[{shared}](#{shared.replace(' ', '-')})")
            self.shared.setdefault(shared, Shapes(self.shared)).add_keys(value, "")
        elif isinstance(value, dict):
            if path:
                self.types.setdefault(path, set()).add("object")
            if key in NAMED:
                for item in value.values():
                    self.add(item, f"{path}.{NAMED[key]}")
            else:
                self.add_keys(value, path)
        elif isinstance(value, list):
            self.types.setdefault(path, set()).add("list")
            for item in value:
                self.add(item, f"{path}[]")
        else:
            self.types.setdefault(path, set()).add(_type(value))

    def add_keys(self, value: dict[str, Any], path: str) -> None:
        """Add the values of an object whose keys are words of the format."""
        for key, item in value.items():
            inside = f"{path}.{key}" if path else key
            self.siblings[inside] = self.siblings.get(inside, frozenset()) | value.keys()
            self.add(item, inside, key)

    @staticmethod
    def _shared(value: Any) -> str | None:
        known = value.keys() if isinstance(value, dict) else ()
        return next((name for name, keys in SHARED.items() if keys <= set(known)), None)

    def rows(self, owner: str) -> Iterator[tuple[str, str, str]]:
        """Yield path, type and meaning; `owner` is the command or the shared object."""
        for path, types in self.types.items():
            if path not in self.siblings:
                continue  # an item of a list, or a value under a name: told with what holds it
            yield path, self._typed(path, types), meaning(f"{owner}.{path}", self.siblings[path])

    def _typed(self, path: str, types: set[str]) -> str:
        if "list" in types:
            inner = self.types.get(f"{path}[]", set())
            of = f" of {self._typed(f'{path}[]', inner)}" if inner else ""
            return " or ".join([f"list{of}", *sorted(types - {"list"})])
        if "object" in types and (name := NAMED.get(path.rpartition(".")[2])) and f"{path}.{name}" in self.types:
            return f"object: {name} to {self._typed(f'{path}.{name}', self.types[f'{path}.{name}'])}"
        return " or ".join(sorted(types - {"integer"} if "number" in types else types))


def _type(value: Any) -> str:
    kinds = {bool: "true or false", int: "integer", float: "number", str: "text", type(None): "null"}
    return kinds[type(value)]


@cache
def documented() -> dict[str, dict[str, str]]:
    """Return what every class of dgviz says of its attributes."""
    classes = {}
    for file in Path(dgviz.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, ast.ClassDef) else None
            if text and "Attributes\n---" in text:
                classes[node.name] = dict(_attributes(text))
    return classes


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    """Yield the attributes of a docstring, each with the first sentence on it."""
    body = re.split(r"Attributes\n-+\n", text)[1]
    body = re.split(r"\n\n?\w[\w ]*\n-+\n", body)[0]
    for entry in re.split(r"\n(?=\S)", body.strip("\n")):
        names, _, about = entry.partition("\n")
        about = re.split(r"(?<=[.;])\s", " ".join(about.split()))[0].rstrip(".;").replace("``", "`")
        for name in re.split(r",\s*", names.partition(" :")[0]):
            yield name.strip(), about[:1].lower() + about[1:] if about[1:2].islower() else about


def meaning(path: str, siblings: frozenset[str]) -> str:
    """Return what a key means: as said here, else as in the class that documents most of the keys beside it."""
    key = path.rpartition(".")[2]
    parent = path.rpartition(".")[0].rpartition(".")[2].removesuffix("[]")
    for name in (f"{parent}.{key}", key):
        if name in MEANINGS:
            return MEANINGS[name]
    fitting = [known for known in documented().values() if known.get(key) and _covers(known, siblings)]
    if not fitting:
        raise LookupError(f"nothing says what {path} means: document it in its class, or in MEANINGS of {__file__}")
    return max(fitting, key=lambda known: len(siblings & known.keys()) / len(siblings | known.keys()))[key]


def _covers(known: dict[str, str], siblings: frozenset[str]) -> bool:
    """Return whether a class documents so many of an object's keys that the object is one of it."""
    return len(siblings & known.keys()) >= max(3, 0.6 * len(siblings))


def json_page() -> str:
    """Return the reference of --json."""
    parts = [
        "What every command prints with `--json`: one object. `weights.TENSOR.rank` is the key `rank` in the "
        "object under a tensor's name in the object `weights`; `[]` is every item of a list. `matrices` "
        "has a row for every matrix of a tensor: one, or as many as a stack of experts has. Infinite numbers are "
        "the texts `inf` and `-inf`, undefined ones null.",
        "Not shown below: `repair-all` prints `directory`, `seconds` and `methods`, a list of [report](#report), "
        "each with `label`, `folder` and `written` (false where it was there already); `evaluate` prints `file`, "
        "`checkpoint_sha256`, `eval_results` and `scores` (a list of benchmark, metric, score, stderr, n); `fetch` "
        "prints `repo`, `commit`, `bytes`, `directory` and `files`; `push` prints `out` and `address`; `calibrate` "
        "prints `table`, `pairs`, `counted`, `families`, `wise_ft`, `norm_matched` and, by outcome, `outcomes`: "
        "`rank_correlation`, `left_out` and `refused`, with `--fits` only `fits` and `summary`, with `--methods` "
        "`table`, `pairs`, `counted` and `methods`; `fit` prints `file`, `keep`, `target_kept` and `healed` "
        "(estimates, in percent), `strength`, `samples_sha256`, `path` (a list of strength and target_kept) and "
        "`plan`; `plan` prints `processor`, `workers`, `machines`, `line` and `stages`, a list of `name`, `seconds`, "
        "`core_seconds`, `memory`, `read` and `written` (bytes); `study` prints `title`, `open`, `coverage`, "
        "`planned`, `scored` and `commands`; `report` prints `out`, `bytes`, `files`, `weights`, `differences` (by "
        "table, rows of `what`, `here` and `there`) and `report`, which is what its `--save` writes: `dgviz`, `base` "
        "and `tuned` (`name`, `fingerprint`), `plan`, `summary`, `model` and `errors` as of a scan, and `tables`: by "
        "name, a list of rows; `layer-masks` "
        "prints `masks`, `recovery`, `remembered` and `written`.",
    ]
    shared: dict[str, Shapes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in EXAMPLES.items():
            shapes = Shapes(shared)
            shapes.add(run(command, Path(folder)))
            parts += [f"## {name}", _table(shapes, name)]
    parts.append("## Shared objects")
    for name in SHARED:
        parts += [f"### {name}", _table(shared[name], name)]
    return "\n\n".join(parts)


def _table(shapes: Shapes, owner: str) -> str:
    if "" in shapes.types:
        return f"Prints a {next(iter(shapes.types['']))}."
    rows = [f"| `{path}` | {kind} | {_escaped(about)} |" for path, kind, about in shapes.rows(owner)]
    return "\n".join(["| key | value | meaning |", "|---|---|---|", *rows])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


_SIDE = "in bytes, of tensors with this action"
MEANINGS: dict[str, str] = {
    # demo
    "demo.base": "folder of the base checkpoint",
    "demo.clean": "folder of the clean fine-tune",
    "demo.noisy": "folder of the noisy fine-tune",
    "demo.scores": "file of scores, for `recovery`",
    "demo.frontier": "file with every method at every strength, scored",
    "correlation": "of the entries of base and tuned (Pearson's); null where a side is constant",
    # inspect
    "counts": "number of tensors by action; of benchmarks by what fine-tuning did to them",
    "counts.repair": "tensors to be repaired",
    "counts.keep": "tensors that stay as tuned",
    "counts.base_only": "tensors that are not written",
    "totals.tensors": "tensors of both sides together",
    "causes": "number of tensors by the cause of their action",
    "matrix_parameters": "floating-point parameters of tuned in tensors of two dimensions or more",
    "repaired_parameters": "those of them that are repaired",
    "totals.nbytes": "size by action",
    "nbytes.repair": _SIDE,
    "nbytes.keep": _SIDE,
    "nbytes.base_only": _SIDE,
    "totals.share": "`repaired_parameters` over `matrix_parameters`",
    "inspect.tensors": "every tensor of both sides",
    "tensors.name": "as in tuned; of a tensor that only base has, as there",
    "nbytes": "size in bytes",
    "tensors.base": "the tensor in base; null where it is only in tuned",
    "tensors.tuned": "the tensor in tuned; null where it is only in base",
    "tensors.cause": "the reason in one word",
    "dtype": "`float32`, `bfloat16` and so on",
    # one spectrum
    "spectrum.name": "tensor",
    "shape": "rows and columns, or what the tensor has",
    "rule": "threshold rule",
    "params": "its parameters, defaults included",
    "rank": "directions kept",
    "tau": "threshold on the singular values; kept are those strictly above",
    "sigma": "standard deviation of one entry of the noise, from the median singular value",
    "edge": "upper end of the bulk of that noise",
    "energy_kept": "share of the sum of squared singular values that is kept",
    "mp_fit": "how closely the spectrum follows the noise law, in percent",
    "noise_fit": "what noise of independent entries of the same shapes usually scores, in percent",
    "mp_fit.tuned": "of the whole update",
    "mp_fit.repaired": "of what is kept",
    "mp_fit.discarded": "of what is dropped, zeros in the place of what is kept",
    "mp_fit.discarded_own": "of the dropped values alone",
    "mp_fit.noise": "what noise of independent entries of this shape usually scores",
    "warnings": "what to know before trusting it",
    "diagnosis": "whether the threshold can be trusted",
    "diagnosis.forecast": "of a model: what the plan would heal and keep",
    "forecast.healed": "of the damage to what base knew, in percent; null where `reason` says why",
    "forecast.target_kept": "of the gain on the target, in percent; null where `reason` says why",
    "diagnosis.verdict": "`applies`, `care`, `no_effect` or `not_applicable`",
    "flags.severity": "`error`: the threshold has no meaning; `warn`: it may be wrong; `info`: it is worth knowing",
    "rounding": "rounding of the stored weights in this update: `format`, `side`, `sigma`, `sigma_most`, `gain`, "
    "`share`, `share_most`, `returned`; null where both sides are stored finely",
    "zero_row_share": "share of rows that are zero throughout",
    "zero_column_share": "share of columns that are zero throughout",
    "live_rows": "rows that are not",
    "live_columns": "columns that are not",
    "strong": "directions taken out before the figures below were computed",
    "strong_concentrated": "those of them that have more than half their weight in one row or column",
    "row_variance_cv": "standard deviation over mean of the rows' variances",
    "column_variance_cv": "standard deviation over mean of the columns' variances",
    "live_shape": "rows and columns that are not zero throughout",
    "nonzero_shape": "rows and columns that are not zero throughout",
    "energy": "sum of squared singular values",
    "summary": "figures of the update's entries",
    "inspect.summary": "the totals in one sentence",
    "route": "which algorithm computed the spectrum",
    "stored": "whether it came from the store; of a scan, how many did",
    "seconds": "how long it took",
    "beta": "aspect ratio, smaller over larger side",
    "singular_values": "all of them, in descending order",
    "relative_size": "norm of the update over that of base, as a share; of a group of weights in percent",
    # scan, noise, thresholds
    "scan.model": "verdict on the whole model",
    "weights": "every weight that was looked at, or how many",
    "errors": "what went wrong, by weight",
    "computed": "how many matrices were decomposed now",
    "classes": "by class of weight: attention, MLP, embedding, head and others",
    "thirds": "by third of the depth",
    "whole": "all weights together",
    "missing": "what is not there: weights without a stored spectrum, models without a score",
    "rules": "one per rule",
    "rules.directions": "number of singular values",
    "rules.parameters": "number of entries",
    "rules.residual_matrices": "how many matrices have one",
    "rules.label": "the rule with its settings, as `--rules` takes it",
    "rank_share.low": "least",
    "rank_share.p5": "5th percentile",
    "rank_share.q1": "first quartile",
    "rank_share.median": "median",
    "rank_share.q3": "third quartile",
    "rank_share.p95": "95th percentile",
    "rank_share.high": "largest",
    "rules.lowest": "the matrix with the least share kept",
    "rules.highest": "the matrix with the largest share kept",
    "rules.emptied": "matrices of which nothing is kept",
    "rules.unchanged": "matrices of which every direction is kept",
    "agreement": "how often two rules decide alike",
    "labels": "the rules, in the order of rows and columns",
    "directions": "share of all directions that both keep or both drop",
    "same_rank": "share of matrices of which both keep equally many",
    # family
    "base": "the checkpoint before fine-tuning",
    "tuned": "the checkpoint after fine-tuning",
    "name": "what it is called",
    "fingerprint": "hash of its tensors",
    "models": "one per fine-tune; of an overlap, the positions of the two",
    "folder": "its folder",
    "models.verdict": "verdict on the model",
    "groups": "all weights, every class, every third of the depth",
    "group": "what the weights have in common",
    "groups.verdict": "verdict on the group",
    "rank_share": "share of directions kept: its distribution over the matrices; of a group in percent",
    "noise_share": "mean of `1 - |D*|^2 / |D|^2` over the weights that changed, in percent",
    "stable_rank": "median over the weights of `|D|^2 / s_1^2`",
    "zero_share": "share of entries that did not change",
    "noise": "the noise table",
    "family.overlap": "what the kept directions of every two models have in common",
    "overlap.all": "over all weights",
    "layers": "by layer",
    "tower": "path of the list of layers",
    "layer": "number of the layer",
    "class": "class of weight",
    "ranks": "directions kept, by model",
    "overlaps": "one per two models",
    "left": "of the column spaces, what the weight writes",
    "right": "of the row spaces, what it reads",
    "kept_norms": "norms of the two kept parts",
    "norms": "norms of the two whole updates",
    "kept_cosine": "cosine of the two kept parts",
    "cosine": "cosine of the two whole updates",
    "not_compared": "weights that some models lack or have in another shape, with the reason",
    # what is written
    "dgviz": "version",
    "torch": "version",
    "device": "where it was computed",
    "format": "`full`, `lora` or `factors`",
    "plan": "what the repair was told",
    "plan.include": "only names that match are changed; null for all",
    "plan.exclude": "names that match are kept; null for none",
    "plan.rule": "threshold rule",
    "plan.dtype": "`auto` for that of each tuned tensor, else of the whole output",
    "plan.method": "repair method",
    "plan.method_params": "its parameters, defaults included",
    "shrinker": "what becomes of the kept singular values",
    "side.files": "its weight files",
    "report.files": "the weight files that were written",
    "adapter": "whether it is a PEFT adapter",
    "bytes": "size",
    "sha256": "hash of the file",
    "total_bytes": "size of all of them",
    "overall": "figures of the whole model",
    "TENSOR.matrices": "one row for each matrix of it",
    "spectrum.matrices": "one row for each matrix of it",
    "matrices": "how many there are",
    "gain": "`<O, D'> / <D', D'>` of the written update O and the exact one D': below 1, rounding ate part of the "
    "repair",
    "noise_restored": "norm of what rounding added over the norm of what was taken away",
    "sidecars": "config, tokenizer and the like, and which side they are from",
    "left_behind": "what stays behind in tuned's folder, and why",
    "report.tensors": "what happened to every tensor",
    "action": "`repair`, `keep` or `base_only`",
    "reason": "why, in a sentence",
    "written": "`repaired`, `factors`, `tuned bytes`, `base bytes`, `tuned, cast`, `base, cast` or `nothing`",
    "method": "repair method",
    "update_square": "sum of squares of the exact update",
    "removed_square": "sum of squares of what was taken away",
    "norm_kept_matrices": "the same of matrices alone; null where their update is zero",
    "norm_kept_vectors": "the same of vectors alone; null where their update is zero",
    "norm_kept": "length of the result's update over that of the fine-tuned one",
    "sparsity": "share of entries that are base's",
    "effective_rank": "of the result's update: `exp` of the entropy of its squared singular values",
    "inputs": "SHA-256 of every tensor it was made from, by side",
    "TENSOR.tuned": "of the tensor in tuned",
    "TENSOR.base": "of the tensor in base",
    "verified": "what was checked after writing",
    "headers": "names, shapes and dtypes",
    "values": "which values were read back",
    "transformers": "the load by transformers",
    "transformers.class": "class it loaded as",
    "transformers.missing": "keys that it did not find",
    "unexpected": "keys that it did not know",
    "mismatched": "keys of another shape",
    "logits": "how the output's logits compare with those of a model built in memory",
    "methods": "one per method",
    "label": "the plan with its settings, as `--methods` takes it",
    "drift": "length of the result's update over that of base",
    "distance": "how far it is from DG-Hard's result, over the length of the fine-tuned update",
    "evaluator": "what scored it, or null",
    "ends": "scores of base and tuned, or null",
    "lines": "one per method and strength",
    "parameter": "the strength that is swept",
    "control": "whether it is there for comparison and no repair",
    "points": "one per value of the strength",
    "points.value": "value of the strength",
    # study, recovery
    "study.title": "what the study file calls itself",
    "open": "fields of the study file that are null: nobody has said them yet",
    "coverage": "one per model of every cell",
    "coverage.missing": "benchmarks and safety axes without a score",
    "planned": "how many scores the study asks for",
    "scored": "how many of them there are",
    "commands": "one per model that lacks some",
    "axes": "safety axes of every cell, as `benchmarks`; they count in no metric",
    "recovery.written": "files of tables and figures that `--tables` wrote",
    "cells": "base, tuned and repairs that belong together; of a repair, its Combined by cell",
    "cells.repaired": "model of every repair",
    "cells.model": "what was fine-tuned, as tables call it; empty where no study file says it",
    "cells.task": "and for what",
    "on_task": "the benchmark that fine-tuning was for",
    "cohorts": "benchmarks or cells looked at together",
    "damaged": "number of damaged benchmarks",
    "improved": "number of improved benchmarks",
    "unchanged": "number of unchanged benchmarks",
    "tolerance": "difference that counts as none",
    "tolerance.value": "of all benchmarks, in units of the score",
    "of": "of single benchmarks",
    "z": "at least so many standard errors",
    "definition": "in words",
    "average": "how benchmarks are averaged",
    "combination": "how two sides are combined",
    "bootstrap": "how intervals were made",
    "replicates": "number of replicates",
    "seed": "seed of the random numbers",
    "resampled": "what is drawn anew in each",
    "benchmarks": "every benchmark of every cell",
    "cell": "which cell",
    "benchmark": "which benchmark",
    "cohort": "which cohort, if any",
    "metric": "which metric of it",
    "higher_is_better": "whether more is better",
    "part": "`damaged`, `improved`, `unchanged` or `on-task`",
    "change": "tuned less base",
    "benchmarks.base": "score of base",
    "benchmarks.tuned": "score of tuned",
    "repaired": "every repair; of a benchmark, its scores",
    "controls": "going back to base and keeping tuned, which are no repairs",
    "notes": "what to beware of",
    "score": "the score",
    "stderr": "its standard error, or null",
    "n": "how many scores or examples it is made from",
    "change_from_tuned": "of a repair, its score less tuned's",
    "change_from_base": "of a repair, its score less base's",
    "percent": "% healed of a damaged benchmark, % preserved of an improved one",
    "metric.value": "in percent; null where it is undefined",
    "interval": "95 % interval: lower and upper end",
    "undefined_replicates": "share of replicates in which it was undefined",
    "healed": "see [metrics](metrics.md)",
    "preserved": "see [metrics](metrics.md)",
    "non_damage": "see [metrics](metrics.md)",
    "on_task_retention": "see [metrics](metrics.md)",
    "clean_up": "see [metrics](metrics.md)",
    "retention": "see [metrics](metrics.md)",
    "combined_population": "see [metrics](metrics.md)",
    "combined_cell": "see [metrics](metrics.md)",
    "balance": "see [metrics](metrics.md)",
    "repair metrics.models": "model of the repair by cell",
    "by_size": "by how much fine-tuning changed the benchmark",
    "percent_of_base": "size of that change",
    "mean_change": "mean of it, in units of the score",
    "sensitivity": "the metrics under other tolerances",
}
"""What a key means, or a key in an object of that name; keys of documented classes need no line here."""
