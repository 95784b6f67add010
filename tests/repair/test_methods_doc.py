"""docs/methods.md says what the registry and the demo's tables say; run as a module it prints its two tables."""

from pathlib import Path

import pytest

from dgviz.demo import demo_scores
from dgviz.repair.methods import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def registry_table():
    rows = ["| method | result | changes | parameters | source |", "|---|---|---|---|---|"]
    for method in METHODS.values():
        parameters = ", ".join(
            f"{p.name} = {p.default:g} ({p.minimum:g} to {p.maximum:g})"
            for p in method.parameters
            if p.name not in ("seed", "rank")
        )
        parameters += ", ".join(f"{p.name} = {p.default:g}" for p in method.parameters if p.name == "rank")
        parameters += ", seed" if method.seeded else ""
        parameters += ("; " if parameters else "") + "rule, shrinker" if method.thresholded else ""
        formula = method.formula.replace("|", "\\|")
        scope = "every tensor" if method.every_tensor else "matrices"
        scope += ", whole model first" if method.whole_model else ""
        rows.append(f"| `{method.name}` | {formula} | {scope} | {parameters} | {method.citation} |")
    return "\n".join(rows)


def scores_table():
    table = demo_scores()
    score = {(row["model"], row["benchmark"]): row for row in table["scores"]}

    def cells(model):
        rows = (score[model, benchmark] for benchmark in ("held_out", "target"))
        return [f"{100 * row['score']:.1f} ± {100 * row['stderr']:.1f}" for row in rows]

    rows = ["| | clean: held-out | clean: target | noisy: held-out | noisy: target |", "|---|---|---|---|---|"]
    rows.append("| " + " | ".join(["base", *cells("base"), *cells("base")]) + " |")
    rows.append("| " + " | ".join(["tuned", *cells("clean"), *cells("noisy")]) + " |")
    for model, about in table["models"].items():
        if about.get("tuned") != "clean":
            continue
        settings = ", ".join(f"{name} = {value:g}" for name, value in about["params"].items() if name != "seed")
        title = METHODS[about["method"]].title + (f", {settings}" if settings else "")
        other = model.replace("clean/", "noisy/")
        rows.append("| " + " | ".join([title, *cells(model), *cells(other)]) + " |")
    return "\n".join(rows)


@pytest.mark.parametrize("table", [registry_table, scores_table])
def test_the_page_has_the_table_as_it_is_today(table):
    assert table() in PAGE.read_text(encoding="utf-8"), "run `python -m tests.test_methods_doc` and paste"


if __name__ == "__main__":
    print(registry_table(), scores_table(), sep="\n\n")
