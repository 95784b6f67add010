"""The pages of docs/ that are made from the code: ``python -m tests.docs.generate`` writes them (``make docs``).

A page is whole, or a block of a page that is otherwise written by hand, between ``<!-- generated: NAME -->`` and
``<!-- end -->``.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import orjson

from dgviz.analysis.figures import FIGURES
from dgviz.calibration import RUNS
from dgviz.command import COMMON, GRAMMAR, Argument, Form
from dgviz.demo import demo_scores
from dgviz.forecast import Calibration, calibration
from dgviz.forecast.foretell import LITTLE
from dgviz.forecast.methods import FLOORS, METHOD_TITLES, MethodsTable, method_rows, pair_method_rows, read_methods
from dgviz.forecast.report import BAND_TITLES, FIT_TITLES, PAIR_TITLES, band_rows, fit_rows, pair_rows
from dgviz.forecast.table import TABLE
from dgviz.forecast.words import averaging_leads, averaging_words, control_words, worth_words
from dgviz.repair.methods import METHODS
from dgviz.rmt.diagnosis import LIMITS, VERDICTS
from dgviz.rmt.diagnosis.advice import advise, advise_verdict
from dgviz.rmt.diagnosis.flags import TITLES
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.rmt.threshold import RULES, Parameter
from dgviz.scores.recovery import AVERAGES, COMBINATIONS, METRICS
from dgviz.words import duration
from tests.docs.api import api_page, rooms
from tests.docs.json_shapes import json_page

DOCS = Path(__file__).parents[2] / "docs"
NOTICE = "<!-- Made from the code by python -m tests.docs.generate; change it there. -->"


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; what would end a cell is escaped."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def page(title: str, *parts: str) -> str:
    """Return a whole page."""
    return "\n\n".join([f"# {title}", NOTICE, *parts]) + "\n"


def commands_page() -> str:
    """Return the reference of the command line."""
    groups = dict.fromkeys(form.group for form in GRAMMAR.values())
    parts = [
        "`python -m dgviz COMMAND`, or `dgviz COMMAND` where it was installed by pip; `--help` says the same. "
        "Results go to standard output, progress and warnings to standard error. The exit status is 0 when it is "
        "done, 1 after a failure on the way, 2 for unusable input, and 130 where it was interrupted. "
        "[JSON](json.md) has the keys of every `--json`.",
        "Every command takes these:\n\n" + table(("", ""), [(f"`{_typed(item)}`", _about(item)) for item in COMMON]),
    ]
    for group in groups:
        parts.append(f"## {group}")
        parts += [_command(form) for form in GRAMMAR.values() if form.group == group]
    return page("Commands", *parts)


def _command(form: Form) -> str:
    usage = " ".join(form.parser().format_usage().removeprefix("usage: ").split()).replace(_ALWAYS, "")
    rows = [(f"`{_typed(argument)}`", _about(argument)) for argument in form.arguments]
    return f"### {form.name}\n\n{form.help[0].upper()}{form.help[1:]}.\n\n    {usage}\n\n" + table(("", ""), rows)


_ALWAYS = " [-q] [--log-level L]"


def _typed(argument: Argument) -> str:
    """Return an argument as it is typed."""
    metavar = argument.metavar or "|".join(argument.choices or ())
    if argument.positional:
        return f"[{metavar}]" if argument.form == "optional" else metavar
    return argument.flag if argument.kind is bool else f"{argument.flag} {metavar}"


def _about(argument: Argument) -> str:
    """Return what an argument means, with its default and whether it may be repeated."""
    links = {
        "threshold rule: {rules}": "[threshold rule](rules.md)",
        "repair method: {methods}": "[repair method](methods.md)",
        "of kept values: {shrinkers}": "[shrinker](rules.md#shrinkers) of the kept values",
        "{formats}": "[a whole checkpoint, an adapter, or factors](../how-to/lora-and-factors.md)",
        "{backends}": "hf, vllm or demo",
        "{averages}": ", ".join(AVERAGES),
        "{combinations}": ", ".join(COMBINATIONS),
    }
    text = argument.help
    for name, words in links.items():
        text = text.replace(name, words)
    if argument.default not in (None, False, "", ()) and "default" not in text:
        text += f" (default {argument.default})"
    repeated = argument.form in ("many", "pairs") and not argument.positional and "several times" not in text
    return text + ("; may be given several times" if repeated else "")


def _parameters(parameters: Iterable[Parameter]) -> str:
    return "; ".join(
        f"`{p.name}`: {p.description}"
        + (f", {p.minimum:g} to {p.maximum:g}" if p.name not in ("seed", "rank") and p.maximum < 1e9 else "")
        + (f", default {p.default:g}" if p.default is not None else ", to be given")
        for p in parameters
    )


def rules_page() -> str:
    """Return the reference of threshold rules and shrinkers."""
    rules = [
        f"### {rule.name}\n\n{rule.title}. {rule.note}".rstrip()
        + (" It needs the weights of both sides; a scan with it stores what it finds." if rule.needs_delta else "")
        + f"\n\n- `{rule.formula}`\n- Parameters: {_parameters(rule.parameters)}\n- Source: {rule.citation or 'none'}"
        for rule in RULES.values()
    ]
    shrinkers = [(f"`{s.name}`", s.title, f"`{s.formula}`", s.citation) for s in SHRINKERS.values()]
    return page(
        "Threshold rules",
        "A rule sets tau on the singular values s of an update, on its nonzero block of N by p (beta = p / N). "
        "Kept are the values strictly above tau. `--rule NAME --rule-param K=V` chooses one; in lists, "
        "`NAME:K=V:K=V`. [How to choose](../how-to/choose-a-threshold.md).",
        *rules,
        "## Shrinkers",
        "A shrinker sets the size of the kept values: `--shrinker NAME`. y = s / (sigma sqrt(N)), b = beta.",
        table(("name", "title", "new value", "source"), shrinkers),
    )


def methods_page() -> str:
    """Return the reference of repair methods."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for method in METHODS.values():
        settings = [_parameters(method.parameters), "rule, shrinker" if method.thresholded else ""]
        scope = "every tensor" if method.every_tensor else "matrices"
        scope += ", after a look at the whole model" if method.whole_model else ""
        rows.setdefault("Controls" if method.control else method.group, []).append(
            (
                f"`{method.name}`",
                method.title,
                f"`{method.formula}`",
                scope,
                "; ".join(filter(None, settings)),
                method.citation,
            )
        )
    return page(
        "Repair methods",
        "`--method NAME --param K=V` chooses one; in lists, `NAME:K=V:K=V`. W0 is base, W1 tuned, D = W1 - W0, "
        "D\\* what DG-Hard keeps of D under the plan's rule and shrinker. Methods that change matrices leave all "
        "other tensors to tuned, bit for bit. Controls are no repairs: they show what a repair must be better "
        "than. [How to compare](../how-to/compare-methods.md), [measured on the demo](../development/demo.md).",
        *(
            text
            for group, own in rows.items()
            for text in (f"## {group}", table(("name", "title", "result", "changes", "parameters", "source"), own))
        ),
        "## Strengths",
        "What a sweep varies, the first by default:",
        table(
            ("method", "strength", "points"),
            [
                (f"`{method.name}`", f"`{strength.parameter}`", ", ".join(f"{point:g}" for point in strength.points))
                for method in METHODS.values()
                for strength in method.strengths
            ],
        ),
    )


def methods_measured() -> str:
    """Return what every method healed at three target scores, over all pairs and where DG-Hard drops much."""
    found = read_methods()
    if len(found.counted) < 2:
        return f"{len(found.counted)} pairs are in the table: too few for means over pairs."
    families = sorted({pair["family"] for pair in found.counted})
    left = len(found.pairs) - len(found.counted)
    about = f"{len(found.counted)} pairs of {len(families)} families ({', '.join(families)})"
    about += f"; {left} whose damage or gain is under two standard errors left out." if left else "."
    dropped = {pair.name: pair.dropped for pair in calibration().pairs}
    much = MethodsTable(found.titles, tuple(pair for pair in found.counted if dropped[pair["name"]] >= LITTLE))
    parts = [about, table(METHOD_TITLES, method_rows(found))]
    parts += [f"Of these the {len(much.pairs)} on which DG-Hard drops {LITTLE:g} % or more:"]
    return "\n\n".join([*parts, table(METHOD_TITLES, method_rows(much))])


def methods_by_pair() -> str:
    """Return what every method healed on every pair, at each target score."""
    found = read_methods()
    parts = []
    for floor in FLOORS if found.counted else ():
        titles = ("pair", *found.titles.values())
        parts += [f"At {floor} % of the target:", table(titles, pair_method_rows(found, floor))]
    return "\n\n".join(parts) or "No pair is in the table."


def diagnosis_page() -> str:
    """Return the reference of checks, limits and verdicts."""
    meanings = {
        "applies": "No check warns: what is dropped has the spectrum of noise. That it was noise is not shown.",
        "care": "A check warns; the reasons and what to do stand beside it.",
        "no_effect": "The update is zero, or everything is kept.",
        "not_applicable": "The median measures no noise.",
    }
    checks = [(f"`{name}`", title, " ".join(advise([name], model=False))) for name, title in TITLES.items()]
    verdicts = [(f"`{n}`", VERDICTS[n], meanings[n], advise_verdict(n, [], model=True)[0]) for n in VERDICTS]
    return page(
        "Diagnosis",
        "DG-Hard takes an update for a few strong directions plus noise whose entries are independent and of one "
        "variance. Each check looks at one thing that this takes for granted, from the singular values and from "
        "what a scan gathers of the entries. `scan --json` has the result as `diagnosis` of every weight and as "
        "`model`.",
        "## Verdicts",
        table(("`verdict`", "on pages", "meaning", "what to do first with a model"), verdicts),
        "Every verdict leads with one action. What averaging and the control did is read from "
        "[the pairs measured](../development/forecast.md), and the better one leads. An action is left out where its "
        "opposite is asked for: no rule that keeps more beside one that keeps less.",
        "A model has the verdict of most of it, each matrix weighed by its share of the parameters and of the "
        "update's energy. Layers that were left out, tensors that were not changed, embeddings of which few rows "
        "were, and the rank that merged matrices share are named in its reasons.",
        "## Checks",
        "A flag is `info`, `warn` or `error`: the threshold has a meaning, may be wrong, has none.",
        table(("`check`", "title", "what to do"), checks),
        "## Limits",
        "Heuristics from simulated noise, not significance levels; [measured](../development/diagnosis.md).",
        table(
            ("limit", "value", "why"), [(f"`{n}`", f"{limit.value:g}", limit.reason) for n, limit in LIMITS.items()]
        ),
    )


def metrics_page() -> str:
    """Return the reference of the metrics of recovery."""
    rows = [
        (f"`{metric.name}`", metric.title, metric.definition.format(combination="harmonic"))
        for metric in METRICS.values()
    ]
    return page(
        "Recovery metrics",
        "In percent; b, t, r are the scores of base, tuned and repaired. Tables are those of arXiv 2605.20296. "
        "[How to get them](../how-to/judge-recovery.md).",
        table(("name", "title", "definition"), rows),
        f"`--average` takes {', '.join(AVERAGES)}; `--combine` takes {', '.join(COMBINATIONS)}.",
    )


def figures_page() -> str:
    """Return the reference of the figures of weights."""
    rows = [(f"`{f.name}`", f.title, f.unit or "number", f.help, f.pooled or "not pooled") for f in FIGURES.values()]
    return page(
        "Figures of weights",
        "What the map of the model, the tables of weights and of fine-tunes and their CSV show: of one "
        "matrix, and pooled over a group of them.",
        table(("name", "title", "unit", "of one matrix", "of a group"), rows),
    )


def demo_table() -> str:
    """Return the scores of the demo's two fine-tunes under every method."""
    scored = demo_scores()
    score = {(row["model"], row["benchmark"]): row for row in scored["scores"]}

    def cells(model: str) -> list[str]:
        rows = (score[model, benchmark] for benchmark in ("held_out", "target"))
        return [f"{100 * row['score']:.1f} ± {100 * row['stderr']:.1f}" for row in rows]

    rows = [["base", *cells("base"), *cells("base")], ["tuned", *cells("clean"), *cells("noisy")]]
    for model, about in scored["models"].items():
        if about.get("tuned") == "clean":
            settings = ", ".join(f"{name} = {value:g}" for name, value in about["params"].items() if name != "seed")
            title = METHODS[about["method"]].title + (f", {settings}" if settings else "")
            rows.append([title, *cells(model), *cells(model.replace("clean/", "noisy/"))])
    return table(("", "clean: held-out", "clean: target", "noisy: held-out", "noisy: target"), rows)


def made_words() -> str:
    """Return what the pairs were made with."""
    made = orjson.loads(TABLE.read_bytes())["made"]
    versions = "; ".join(", ".join(f"{name} {number}" for name, number in own.items()) for own in made["versions"])
    seconds = sum(row["seconds"] for row in orjson.loads(TABLE.read_bytes())["pairs"])
    measured, others = len(calibration().pairs), "; the others were not measured"
    return (
        f"{measured} of the {len(RUNS)} pairs that the command makes are in the table"
        f"{others if measured < len(RUNS) else ''}. They took {duration(seconds)} of processes of one thread, two at "
        f"a time, on two cores that were busy with other work. Data: {', '.join(made['data'])}. Versions: {versions}."
    )


def standing_words(measured: Calibration) -> str:
    """Return how both alternatives stand against DG-Hard."""
    averaging = f"averaging with base (WiSE-FT): {averaging_words(measured)}"
    return f"{averaging}. D at the same length: {control_words(measured)}."


def averaging_point() -> str:
    """Return what README says of averaging, as a point of its list."""
    lead = "Average with base first" if averaging_leads() else "Score averaging beside it"
    return (
        f"- **{lead}.** WiSE-FT is `(1 - a) W_base + a W_tuned`: {averaging_words()}. The control, every matrix's "
        f"update shortened to the length of what DG-Hard keeps: {control_words()} "
        "([all of them](docs/development/forecast.md))."
    )


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/json.md": lambda: page("JSON", json_page()),
    "reference/rules.md": rules_page,
    "reference/methods.md": methods_page,
    "reference/diagnosis.md": diagnosis_page,
    "reference/figures.md": figures_page,
    "reference/metrics.md": metrics_page,
    "development/api.md": lambda: page("API", api_page()),
}
BLOCKS: dict[tuple[str, str], Callable[[], str]] = {
    ("development/demo.md", "scores"): demo_table,
    ("development/design.md", "rooms"): rooms,
    ("development/forecast.md", "worth"): worth_words,
    ("development/forecast.md", "left out"): lambda: table(FIT_TITLES, fit_rows(calibration())),
    ("development/forecast.md", "bands"): lambda: table(BAND_TITLES, band_rows(calibration())),
    ("development/forecast.md", "standing"): lambda: (
        "Of all pairs: "
        + standing_words(calibration())
        + f"\n\nOf the pairs on which DG-Hard drops {LITTLE:g} % or more: "
        + standing_words(Calibration(tuple(pair for pair in calibration().pairs if pair.dropped >= LITTLE)))
    ),
    ("development/forecast.md", "pairs"): lambda: table(PAIR_TITLES, pair_rows(calibration().pairs)),
    ("development/forecast.md", "methods"): methods_measured,
    ("development/forecast.md", "methods by pair"): methods_by_pair,
    ("development/forecast.md", "made"): made_words,
    ("../README.md", "averaging"): averaging_point,
}


def put_block(text: str, name: str, content: str) -> str:
    """Return a page with one of its blocks replaced."""
    pattern = rf"(<!-- generated: {name} -->\n).*?(\n<!-- end -->)"
    text, found = re.subn(pattern, lambda match: match[1] + content + match[2], text, flags=re.DOTALL)
    assert found == 1, f"the page has {found} blocks {name}"
    return text


def main() -> None:
    """Write every page and block."""
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
    for (name, block), make in BLOCKS.items():
        file = DOCS / name
        file.write_text(put_block(file.read_text(encoding="utf-8"), block, make()), encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["DGVIZ_CACHE_DIR"] = home
        main()
