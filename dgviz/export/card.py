"""The model card: what an output was made of and how, for people and for the Hugging Face Hub."""

from collections.abc import Mapping
from typing import Any

from dgviz.checkpoint import Checkpoint
from dgviz.checkpoint.lone import own_stem
from dgviz.command import Command
from dgviz.export.lineage import ancestors, described, hub_name
from dgviz.export.plan import ExportPlan
from dgviz.export.reload import load_words
from dgviz.repair.report import Changes
from dgviz.rmt.threshold import find_rule
from dgviz.words import exact_number, number

_ROWS = 40
_RELATIONS = {"full": "finetune", "lora": "adapter"}


def model_card(plan: ExportPlan, report: Mapping[str, Any]) -> str:
    """Return the content of ``README.md``."""
    from huggingface_hub.repocard_data import ModelCardData

    names = ancestors(plan.pair, plan.base_name)
    data = ModelCardData(
        base_model=names if len(names) > 1 else "".join(names) or None,
        **described(plan.pair, plan.format),
        **({"base_model_relation": _RELATIONS[plan.format]} if plan.format in _RELATIONS else {}),
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(plan, report)}"


def _params(params: Mapping[str, float]) -> str:
    """Return parameters in brackets, or nothing where there are none."""
    return f" ({', '.join(f'{name} = {exact_number(value)}' for name, value in params.items())})" if params else ""


def _name(checkpoint: Checkpoint) -> str:
    """Return what an input is called: its hub id, its folder's name, or that of one file among others."""
    file = f"/{checkpoint.shards[0]}" if own_stem(checkpoint) else ""
    return hub_name(checkpoint) or checkpoint.path.name + file


def _body(plan: ExportPlan, report: Mapping[str, Any]) -> str:
    """Return the card below its header."""
    base, tuned = plan.base_name or _name(plan.pair.base), _name(plan.pair.tuned)
    rule, recipe = find_rule(plan.repair.rule), plan.repair.recipe
    rule_line = f"- threshold: {rule.title}, `{rule.formula}`{_params(plan.repair.params)}; {rule.citation}"
    what = {
        "full": f"A repaired copy of `{tuned}`, a fine-tuned descendant of `{base}`.",
        "lora": f"A LoRA adapter for `{base}`: the repaired update of `{tuned}`.",
        "factors": f"The factors of the repaired update from `{base}` to `{tuned}`.",
    }[plan.format]
    written = {"format": plan.format, "allow_code": plan.allow_code, "base_name": plan.base_name}
    command = Command("repair", base=base, tuned=tuned, out="OUT", **plan.repair.arguments, **written)
    parts = [
        f"# {tuned}, repaired",
        what,
        "`W0` is base, `W1` tuned, `D = W1 - W0` the update of one tensor.",
        f"- method: {recipe.title}, `{recipe.formula}`{_params(plan.repair.method_params)}; {recipe.citation}",
        *([rule_line] if recipe.thresholded else []),
        f"- made with dgviz {report['dgviz']}, torch {report['torch']}, on {report['device']}",
        f"\n```\n{command.lasting}\n```",
        *_figures(plan, report),
        "## What it does not say\n\nA repair is chosen by the update's numbers alone; it does not measure what "
        "the model can do. Evaluate the result on your own tasks before it replaces anything.",
        *_left(report),
        f"## Tensors\n\n{_table(report)}",
    ]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ").replace(":\n- ", ":\n\n- ", 1) + "\n"


def _figures(plan: ExportPlan, report: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs about the whole model."""
    counts = report["counts"]
    overall = report["overall"]
    text = f"{Changes.of(report['tensors'].values()).words}, {counts['keep']} more are tuned's as they are"
    text += f", {counts['base_only']} only in base and not written." if counts["base_only"] else "."
    if plan.format == "lora":
        changed = sum(row["written"] == "factors" for row in report["tensors"].values())
        text = f"The adapter changes {changed} tensors of base."
        if changed < counts["repair"]:
            others = counts["repair"] - changed
            text += f" Of {others} more that it could change the method keeps nothing: they stay as in base."
        text += f" {report['loading'][:1].upper()}{report['loading'][1:]}."
    if overall["gain"] is not None:
        text += f" Written update over exact update, energy-weighted (gain): {overall['gain']:.4f}."
    if overall["noise_restored"] is not None:
        text += f" Rounding put back {overall['noise_restored']:.1%} of the norm of what was removed."
    found = ["## Result\n\n" + text]
    left = report.get("left_at_base") or {}
    if left:
        rows = "\n".join(f"| `{name}` | {reason} |" for name, reason in list(left.items())[:_ROWS])
        found.append(
            f"{len(left)} tensors that differ in tuned stay as in base, for LoRA has no form for them or the method "
            "does not repair them. A full export repairs them or takes them from tuned, so it is another model than "
            f"base with this adapter:\n\n| tensor | why |\n|---|---|\n{rows}{_more(len(left))}"
        )
    if report["warnings"]:
        found.append("Warnings:\n\n" + "\n".join(f"* {warning}" for warning in report["warnings"][:20]))
    checked = {check: checked_words(outcome) for check, outcome in report["verified"].items()}
    logits = checked.get("logits", "")  # how far they are apart, and whether there was memory, is one run's
    if logits and not logits.startswith("not compared"):
        checked["logits"] = "as of a model built in memory from plan and inputs"
    elif "free memory" in logits:
        checked["logits"] = "not compared"
    verified = "\n".join(f"* {check}: {words}" for check, words in checked.items())
    return [*found, f"## Verified after writing\n\n{verified}"]


def _left(report: Mapping[str, Any]) -> list[str]:
    """Return the paragraph about files that stay behind in tuned's folder."""
    left = report.get("left_behind") or {}
    if not left:
        return []
    rows = "\n".join(f"| `{name}` | {reason} |" for name, reason in list(left.items())[:_ROWS])
    return [f"## Files of tuned that were not carried over\n\n| file | why |\n|---|---|\n{rows}{_more(len(left))}"]


def checked_words(outcome: Any) -> str:
    """Return what a check found, in words."""
    if not isinstance(outcome, Mapping):
        return str(outcome)
    if "skipped" in outcome:
        return f"not checked: {outcome['skipped']}"
    return load_words(outcome)


def _table(report: Mapping[str, Any]) -> str:
    """Return one row per repaired tensor, the rest counted."""
    rows = [(name, row) for name, row in report["tensors"].items() if row["action"] == "repair"]
    lines = [
        f"| `{name}` | {row['written']} | "
        + " | ".join(_range(row, key) for key in ("rank", "energy_kept", "gain"))
        + " |"
        for name, row in rows[:_ROWS]
    ]
    head = "| tensor | written | rank | energy kept | gain |\n|---|---|---|---|---|\n"
    return head + "\n".join(lines) + _more(len(rows)) + "\n\nThe whole table is in `dgviz.json`."


def _more(count: int) -> str:
    return f"\n\n... and {count - _ROWS} more" if count > _ROWS else ""


def _range(row: Mapping[str, Any], name: str) -> str:
    """Return a figure of a tensor, the smallest and largest of a stack's."""
    return number([value for matrix in row["matrices"] if isinstance(value := matrix.get(name), int | float)])
