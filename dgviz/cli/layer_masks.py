"""``layer-masks``: repair parts of the layers only, score each, and tabulate what each part heals and costs."""

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import dgviz.demo.backend  # noqa: F401  (the demo among the evaluators)
from dgviz.analysis.study import write_tables
from dgviz.analysis.study.masks import LayerMask, layer_masks
from dgviz.analysis.study.tables import PaperTable
from dgviz.cli.evaluate import evaluation_settings
from dgviz.cli.options import chosen_pair, print_columns, print_result, repair_plan, warn
from dgviz.cli.progress import Progress
from dgviz.errors import EvaluationError
from dgviz.files import pretty_json, write_file
from dgviz.jobs import JobReporter
from dgviz.scores import choose_scores
from dgviz.scores.recovery import Tolerance, assess, plan_study, recovery_report


def run(options: argparse.Namespace) -> int:
    """Score base, tuned and every mask that has no scores yet, and print the table of all of them."""
    from dgviz.analysis.study.mask_run import commanding, evaluating, iter_masks, mask_scores, mask_table, scores_json

    if bool(options.scorer) == bool(options.tasks):
        raise EvaluationError("name --tasks for an evaluator or a --scorer of your own: one of the two")
    settings = evaluation_settings(options)
    scorer = commanding(options.scorer) if options.scorer else evaluating(options.tasks, options.backend, settings)
    pair = chosen_pair(options)
    masks = layer_masks(pair, repair_plan(options), options.masks or ())
    folder = Path(options.directory).expanduser()
    scored = []
    steps = iter_masks(pair, masks, scorer, folder, options.device, options.keep)
    with closing(steps), Progress("layer-masks", len(masks) + 2, unit="model") as progress:
        for item in steps:
            scored.append(item)
            progress.tell(1, item.name)
    scores = mask_scores(scored, options.on_task)
    study = plan_study(scores, base="base", tuned="tuned", on_task=options.on_task)
    recovery = assess(study, choose_scores(scores, options.metric), Tolerance(), replicates=0)
    table = mask_table(recovery, masks)
    written = write_tables([table], folder)
    written.append(folder / "scores.json")
    write_file(written[-1], pretty_json(scores_json(scores)))
    JobReporter.from_environment().finish({"masks": len(masks), "out": str(folder)})
    result = {
        "masks": [{"name": mask.name, "tensors": len(mask.tensors), "plan": mask.plan.to_json()} for mask in masks],
        "recovery": recovery_report(recovery),
        "remembered": [item.name for item in scored if item.remembered],
        "written": list(map(str, written)),
    }
    print_result(options, result, lambda: _print(table, masks, written))
    warn(recovery.notes, "note")
    warn(recovery.missing, "missing")
    return 0


def _print(table: PaperTable, masks: Sequence[LayerMask], written: Sequence[Path]) -> None:
    """Print the table and where it was written."""
    last_first = lambda cells: (*cells[1:], cells[0])  # noqa: E731  (the widest column at the end)
    print_columns(last_first(table.columns), [last_first(tuple(map(str, entries))) for _, entries in table.rows])
    print(f"\n{len(masks)} repairs; wrote {', '.join(path.name for path in written)} into {written[0].parent}")
