"""Score files of other tools: lighteval, Inspect, the reference implementation, an adapter under vLLM."""

import io
import json
import zipfile

import pytest

from dgviz.errors import ScoresError
from dgviz.scores import choose_scores, parse_scores, read_scores
from dgviz.scores.evaluate import TaskScores, write_hub_results

LIGHTEVAL = {
    "config_general": {"model_name": "org/model", "max_samples": 10, "lighteval_sha": "?"},
    "results": {
        "arc:challenge:25": {"acc": 0.5, "acc_stderr": 0.1, "acc_norm": 0.6, "acc_norm_stderr": 0.1},
        "mmlu:anatomy:5": {"acc": 0.4, "acc_stderr": 0.2},
        "mmlu:law:5": {"acc": 0.6, "acc_stderr": 0.2},
        "mmlu:_average:5": {"acc": 0.5, "acc_stderr": 0.2},
        "gsm8k:0": {"extractive_match": 0.3, "extractive_match_stderr": 0.01},
        "all": {"acc": 0.5, "acc_stderr": 0.15, "acc_norm": 0.6, "extractive_match": 0.3},
    },
    "config_tasks": {
        "gsm8k:0": {
            "effective_num_docs": 10,
            "metrics": [{"metric_name": "extractive_match", "higher_is_better": True}],
        },
        "mmlu:anatomy:5": {"metrics": [{"metric_name": ["acc"], "higher_is_better": {"acc": True}}]},
    },
}
INSPECT = {
    "version": 2,
    "status": "success",
    "eval": {
        "task": "inspect_evals/gsm8k",
        "task_version": 2,
        "model": "hf/local",
        "model_args": {"model_path": "/models/tuned"},
        "config": {"limit": 20, "epochs": 1},
    },
    "results": {
        "total_samples": 20,
        "completed_samples": 20,
        "scores": [
            {
                "name": "match",
                "scorer": "match",
                "scored_samples": 19,
                "metrics": {
                    "accuracy": {"name": "accuracy", "value": 0.55},
                    "stderr": {"name": "stderr", "value": 0.11},
                    "std": {"name": "std", "value": 0.5},
                },
            }
        ],
    },
}
REFERENCE = {
    "summary": {"score": 0.61, "n": 200, "n_prompts": 200, "elapsed_s": 3.0, "benchmark": "gsm8k"},
    "samples": [{"pred_raw": "x", "pred": "1", "gold": "1", "correct": True, "meta": {}}],
}


def parse(content, name="results.json", **options):
    return parse_scores(json.dumps(content).encode(), name, **options)


def archive(content, member="header.json"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member, json.dumps(content))
    return stream.getvalue()


def rows(table):
    return {(score.benchmark, score.metric): score for score in table.scores}


def test_lightevals_averages_count_their_tasks_and_all_is_a_summary():
    table = parse(LIGHTEVAL)
    found = rows(table)
    assert table.model_names() == ("org/model",) and table.roles == {"all": "summary"}
    law, average = found["mmlu:law:5", "acc"], found["mmlu:_average:5", "acc"]
    assert (law.group, law.stderr, law.conditions) == ("mmlu:_average:5", 0.2, "5 shots, limit 10")
    assert (average.group, average.stderr, average.value) == ("", None, 0.5)  # a mean of standard errors is none
    assert found["gsm8k:0", "extractive_match"].n == 10
    assert found["gsm8k:0", "extractive_match"].higher_is_better is True
    chosen = choose_scores(table)
    assert set(chosen.metrics) == {"arc:challenge:25", "mmlu:_average:5", "gsm8k:0"}
    assert "left aside, a summary of other benchmarks: all" in chosen.notes
    bars = {name.replace(":", "|"): row for name, row in LIGHTEVAL["results"].items()}
    older = rows(parse({**LIGHTEVAL, "results": bars}))
    assert older["mmlu|law|5", "acc"].group == "mmlu|_average|5"


@pytest.mark.parametrize("packed", [False, True])
def test_a_log_of_inspect(packed):
    content = archive(INSPECT) if packed else json.dumps(INSPECT).encode()
    (score,) = parse_scores(content, "x.eval" if packed else "x.json").scores
    assert (score.model, score.benchmark, score.metric) == ("/models/tuned", "inspect_evals/gsm8k", "accuracy")
    assert (score.value, score.stderr, score.n, score.higher_is_better) == (0.55, 0.11, 19, True)
    assert score.conditions == "task version 2, limit 20"


def test_scorers_of_inspect_are_told_apart():
    second = {"name": "judge", "scorer": "judge", "reducer": "mean", "metrics": {"mean": {"value": 0.4}}}
    both = {**INSPECT, "results": {**INSPECT["results"], "scores": [*INSPECT["results"]["scores"], second]}}
    assert [score.metric for score in parse(both).scores] == ["match/accuracy", "judge:mean/mean"]


def test_the_reference_implementations_folders(tmp_path):
    for model, value in (("base", 0.5), ("tuned", 0.4)):
        for benchmark in ("gsm8k", "mmlu"):
            folder = tmp_path / "eval_results" / model
            folder.mkdir(parents=True, exist_ok=True)
            summary = {**REFERENCE["summary"], "score": value, "benchmark": benchmark}
            (folder / f"{benchmark}.json").write_text(json.dumps({**REFERENCE, "summary": summary}))
    (tmp_path / "eval_results" / "notes.json").write_text("{}")
    table = read_scores([tmp_path / "eval_results"])
    assert table.model_names() == ("base", "tuned") and table.benchmark_names() == ("gsm8k", "mmlu")
    assert {score.value for score in table.scores if score.model == "tuned"} == {0.4}
    assert all(score.n == 200 for score in table.scores)


@pytest.mark.parametrize(
    "arguments",
    [
        "pretrained=org/base,dtype=auto,enable_lora=True,lora_local_path=me/adapter",
        {"pretrained": "org/base", "lora_local_path": "me/adapter"},
    ],
)
def test_an_adapter_under_vllm_is_not_its_base(arguments):
    content = {
        "results": {"t": {"acc,none": 0.5}},
        "config": {"model": "vllm", "model_args": arguments},
        "model_name": "org/base",
    }
    assert parse(content).model_names() == ("me/adapter",)
    del content["config"]
    assert parse(content).model_names() == ("org/base",)


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (json.dumps({**INSPECT, "status": "error"}).encode(), "x.json", "ended as 'error': finish it by"),
        (archive(INSPECT, "_journal/start.json"), "x.eval", "has no header.json: it is no finished log"),
        (b"PK\x03\x04 and no more", "x.eval", "cannot be read as a zip archive"),
        (json.dumps({**LIGHTEVAL, "config_general": {}}).encode(), "r.json", "does not say which model it scores"),
        (json.dumps(REFERENCE).encode(), "gsm8k.json", "does not say which model it scores"),
    ],
)
def test_complaints(content, name, words):
    with pytest.raises(ScoresError, match=words):
        parse_scores(content, name)


def test_scores_of_an_output_go_beside_it_as_the_hub_reads_them(tmp_path):
    import yaml

    results = {
        "results": {"arc_easy": {"acc,none": 0.6, "acc_norm,none": 0.62}, "mine": {"acc,none": 0.1}},
        "configs": {
            "arc_easy": {"dataset_path": "allenai/ai2_arc", "dataset_name": "ARC-Easy"},
            "mine": {"dataset_path": "json"},
        },
        "n-shot": {"arc_easy": 5},
        "model_name": "m",
    }
    scored, scores = [TaskScores("arc_easy", results, False, 1.0, "")], parse(results).scores
    assert write_hub_results(tmp_path, scored, scores) == []  # no output of dgviz
    (tmp_path / "dgviz.json").write_text("{}")
    (file,) = write_hub_results(tmp_path, scored, scores)
    assert file == tmp_path / ".eval_results" / "arc_easy.yaml"
    (entry,) = yaml.safe_load(file.read_text())
    assert entry["dataset"] == {"id": "allenai/ai2_arc", "task_id": "ARC-Easy"} and entry["value"] == 0.62
    assert entry["notes"] == "acc_norm, 5 shots, task arc_easy of lm-evaluation-harness"
