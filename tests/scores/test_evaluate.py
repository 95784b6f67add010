"""Scores made here: the real harness on a tiny model with local tasks, remembered by content, read by `recovery`."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.checkpoint import open_checkpoint
from dgviz.cli import main
from dgviz.demo import demo_paths, demo_scores
from dgviz.errors import EvaluationError, PackageError
from dgviz.scores import choose_scores, parse_scores, read_scores
from dgviz.scores.evaluate import Settings, checkpoint_hash, iter_evaluation, write_results
from dgviz.scores.evaluate import backends as backends_room
from dgviz.scores.evaluate.settings import task_key

# The harness, datasets and transformers warn of their own affairs.
pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = ["<unk>", "<s>", "</s>", "<pad>", *(f"w{n}" for n in range(20)), "yes", "no"]
CHOICE = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [" yes", " no"]
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
PERPLEXITY = """task: toy_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - {{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
metadata: {{version: 2.0}}
"""
GROUP = """group: toy
task: [toy_a, toy_b]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
metadata: {version: 1.0}
"""


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """No network, caches of the libraries' own, and no description of the machine, for which torch runs pip."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.collect_env.get_pretty_env_info", lambda: "")
        for name, value in {
            "HF_DATASETS_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(tmp_path_factory.mktemp("datasets")),
            "TOKENIZERS_PARALLELISM": "false",
        }.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    draws = torch.Generator().manual_seed(0)
    for name in ("toy_a", "toy_b"):
        rows = []
        for _ in range(12):
            first, second, answer = (int(torch.randint(n, (1,), generator=draws)) for n in (20, 20, 2))
            rows.append(json.dumps({"question": f"w{first} w{second}", "answer": answer}))
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
        (folder / f"{name}.yaml").write_text(CHOICE.format(name=name, data=folder / f"{name}.jsonl"))
    (folder / "toy_text.yaml").write_text(PERPLEXITY.format(data=folder / "toy_a.jsonl"))
    (folder / "toy.yaml").write_text(GROUP)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, a tuned and a repaired language model of 10,000 parameters, with a tokenizer made here."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models")
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    weights = load_file(folder / "base" / "model.safetensors")
    noise = {name: torch.randn(w.shape, generator=torch.Generator().manual_seed(1)) for name, w in weights.items()}
    for name, amount in (("tuned", 0.5), ("repaired", 0.2)):
        shutil.copytree(folder / "base", folder / name)
        changed = {key: (w + amount * w.std() * noise[key]).contiguous() for key, w in weights.items()}
        save_file(changed, folder / name / "model.safetensors", metadata={"format": "pt"})
    return folder


def score(model, names, tasks, **options):
    return list(
        iter_evaluation(model, names, "hf", Settings(task_path=tasks, batch_size="4", device="cpu", **options))
    )


def command(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.slow
def test_the_command_scores_and_recovery_reads(capsys, models, tasks, tmp_path):
    for name in ("base", "tuned", "repaired"):
        status, out, _ = command(
            capsys, "evaluate", models / name, "--tasks", "toy,toy_text", "--task-path", tasks, "--batch-size", 4,
            "--device", "cpu", "--out", tmp_path / "results", "--json",
        )  # fmt: skip
        assert status == 0
        rows = {row["benchmark"]: row for row in json.loads(out)["scores"]}
        assert set(rows) == {"toy", "toy_a", "toy_b", "toy_text"}
        assert rows["toy"]["n"] == 24 and 0 <= rows["toy"]["score"] <= 1 and rows["toy"]["stderr"] > 0
        assert rows["toy_text"]["metric"] == "word_perplexity" and rows["toy_text"]["score"] > 1
    table = read_scores([tmp_path / "results"])
    assert set(table.model_names()) == {"base", "tuned", "repaired"}
    chosen = choose_scores(table)
    assert set(chosen.metrics) == {"toy", "toy_text"}
    assert chosen.scores["", "base", "toy_text"].higher_is_better is False
    status, out, err = command(
        capsys, "recovery", tmp_path / "results", "--base", "base", "--tuned", "tuned", "--tolerance", 0, "--z", 0,
        "--on-task", "toy", "--bootstrap", 20, "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert status == 0 and list(found["repaired"]) == ["repaired"]
    assert found["benchmarks"][1]["part"] == "damaged"  # noise in the weights makes any text less likely
    values = {role: chosen.scores["", role, "toy_text"].value for role in ("base", "tuned", "repaired")}
    percent = 100 * (values["repaired"] - values["tuned"]) / (values["base"] - values["tuned"])
    assert found["repaired"]["repaired"]["healed"]["value"] == pytest.approx(percent)
    assert "lower is better of toy_text" in err


def test_real_results_in_every_layout(models, tasks, tmp_path):
    """What the harness wrote, and the same as older versions wrote it."""
    scored = score(models / "base", ["toy", "toy_text"], tasks)
    path = write_results("org/model", "hf", Settings(task_path=tasks), scored, tmp_path)
    assert path.parent.name == "org__model"
    content = json.loads(path.read_text())
    now = {
        (s.benchmark, s.metric): (s.value, s.stderr, s.n) for s in parse_scores(path.read_bytes(), "now.json").scores
    }
    last_year = {**content, "results": {k: dict(v) for k, v in content["results"].items()}}
    for row in last_year["results"].values():
        for name in ("name", "sample_len", "sample_count"):
            row.pop(name, None)
    old = parse_scores(json.dumps(last_year).encode(), "old.json").scores
    assert {(s.benchmark, s.metric): (s.value, s.stderr, s.n) for s in old} == now
    for name in ("model_name", "n-samples", "higher_is_better", "groups", "n-shot"):
        last_year.pop(name, None)
    first = parse_scores(json.dumps(last_year).encode(), "first.json").scores
    assert {(s.benchmark, s.metric): (s.value, s.stderr) for s in first} == {k: v[:2] for k, v in now.items()}
    assert {s.higher_is_better for s in first if s.benchmark == "toy_text"} == {False}
    assert {s.model for s in first} == {"org/model"}
    for row in last_year["results"].values():
        for name in [name for name in row if "," in name]:
            row[name.split(",")[0]] = row.pop(name)
    oldest = parse_scores(json.dumps(last_year).encode(), "oldest.json").scores
    assert {(s.benchmark, s.metric): (s.value, s.stderr) for s in oldest} == {k: v[:2] for k, v in now.items()}


@pytest.mark.slow
def test_scores_are_remembered_by_content(models, tasks, tmp_path):
    first = score(models / "base", ["toy_a"], tasks)
    shutil.copytree(models / "base", tmp_path / "another name")
    config = json.loads((tmp_path / "another name" / "config.json").read_text())
    (tmp_path / "another name" / "config.json").write_text(json.dumps({**config, "_name_or_path": "elsewhere"}))
    again = score(tmp_path / "another name", ["toy_a"], tasks)
    assert again[0].remembered and again[0].results == first[0].results
    assert not score(models / "base", ["toy_a"], tasks, limit=5)[0].remembered
    weights = load_file(tmp_path / "another name" / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, tmp_path / "another name" / "model.safetensors", metadata={"format": "pt"})
    assert not score(tmp_path / "another name", ["toy_a"], tasks)[0].remembered


@pytest.mark.slow
def test_a_stopped_run_goes_on(models, tasks, monkeypatch):
    run = iter_evaluation(
        models / "tuned", ["toy_b", "toy_a"], "hf", Settings(limit=7, task_path=tasks, device="cpu")
    )
    assert next(run).task == "toy_b"
    run.close()
    opened = []
    real = backends_room.HarnessBackend.open
    monkeypatch.setattr(
        backends_room.HarnessBackend, "open", lambda self, *given: opened.append(given) or real(self, *given)
    )
    again = score(models / "tuned", ["toy_b", "toy_a"], tasks, limit=7)
    assert [item.remembered for item in again] == [True, False] and len(opened) == 1
    assert all(item.remembered for item in score(models / "tuned", ["toy_a", "toy_b"], tasks, limit=7))
    assert len(opened) == 1  # nothing to score: the model is not loaded


@pytest.mark.slow
def test_changed_data_is_scored_again(models, tasks, tmp_path):
    folder, data = tmp_path / "mine", tmp_path / "data.jsonl"
    folder.mkdir()
    shutil.copyfile(tasks / "toy_a.jsonl", data)
    (folder / "mine.yaml").write_text(CHOICE.format(name="mine", data=data))
    assert not score(models / "base", ["mine"], folder)[0].remembered
    assert score(models / "base", ["mine"], folder)[0].remembered
    data.write_text("\n".join(data.read_text().splitlines()[:5]))
    changed = score(models / "base", ["mine"], folder)[0]
    assert not changed.remembered and changed.results["n-samples"]["mine"]["effective"] == 5


@pytest.mark.slow
def test_a_spoiled_memory_is_none(models, tasks):
    score(models / "base", ["toy_a"], tasks, limit=3)
    for file in Path(os.environ["DGVIZ_CACHE_DIR"], "scores-1").rglob("*.json"):
        file.write_text("{")
    assert not score(models / "base", ["toy_a"], tasks, limit=3)[0].remembered


@pytest.mark.slow
def test_the_demo_scores_itself(capsys, tmp_path):
    status, out, _ = command(
        capsys, "evaluate", demo_paths()["noisy"], "--backend", "demo", "--tasks", "plain,target", "--out", tmp_path,
        "--name", "noisy",
    )  # fmt: skip
    assert status == 0 and "2 tasks, 0 of them remembered" in out
    found = {(s.model, s.benchmark): s.value for s in read_scores([tmp_path]).scores}
    stored = {(row["model"], row["benchmark"]): row["score"] for row in demo_scores()["scores"]}
    assert set(found) == {("noisy", "plain"), ("noisy", "target")}
    assert {key: pytest.approx(stored[key], abs=0.01) for key in found} == found


def test_arguments_of_the_model_reach_it_and_are_scores_of_their_own(models, tasks, tmp_path):
    with pytest.raises(EvaluationError, match=r"does not load as a language model.*nonsense"):
        score(models / "base", ["toy_b"], tasks, model_args={"dtype": "nonsense"})
    plain = Settings(task_path=tasks)
    assert Settings(model_args={"enforce_eager": "True"}).values_of("model_args") == {"enforce_eager": True}
    keys = {
        task_key("checkpoint", "hf", "1", "toy_a", settings)
        for settings in (
            plain,
            dataclasses.replace(plain, model_args={"dtype": "bfloat16"}),
            dataclasses.replace(plain, generation={"temperature": "0"}),
        )
    }
    assert len(keys) == 3


def test_the_hash_is_of_the_content(models, tmp_path):
    assert checkpoint_hash(open_checkpoint(models / "base")) != checkpoint_hash(open_checkpoint(models / "tuned"))
    shutil.copytree(models / "base", tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("notes")
    same = checkpoint_hash(open_checkpoint(models / "base"))
    assert checkpoint_hash(open_checkpoint(tmp_path / "copy")) == same
    (tmp_path / "copy" / "tokenizer_config.json").write_text("{}")
    assert checkpoint_hash(open_checkpoint(tmp_path / "copy")) != same


class TestComplaints:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--backend", "gguf"], "there is no backend 'gguf'; there are hf, vllm, demo"),
            ([], "no task is named: give --tasks"),
            (["--tasks", "a", "--limit", "0"], "--limit is 0: give a whole number from 1 on"),
            (["--tasks", "a", "--batch-size", "x"], "--batch-size is 'x'"),
            (["--tasks", "a", "--task-path", "/nowhere"], "there is no folder of tasks /nowhere"),
            (["--backend", "demo", "--tasks", "held_out"], "the demo has no task 'held_out'; it has plain"),
            (["--backend", "demo", "--tasks", "plain", "--limit", "3"], "the demo takes no --limit"),
            (["--backend", "demo", "--tasks", "plain", "--gen-arg", "temperature=0"], "the demo takes no --gen-arg"),
        ],
    )
    def test_arguments(self, capsys, models, arguments, words):
        status, out, err = command(capsys, "evaluate", models / "base", *arguments)
        assert status == 2 and out == "" and words in err

    @pytest.mark.parametrize(("backend", "module"), [("hf", "lm_eval"), ("vllm", "vllm")])
    def test_what_is_not_installed_is_named_with_its_pip_line(self, monkeypatch, backend, module):
        monkeypatch.setitem(sys.modules, module, None)
        source = {"lm_eval": r"'dgviz\[evaluate\]'", "vllm": "vllm"}[module]
        with pytest.raises(PackageError, match=f"needs {module}.*: run `python -m pip install {source}`"):
            next(iter_evaluation("x", ["a"], backend))

    @pytest.mark.soak  # the harness reads its thousands of task files to be sure
    def test_unknown_tasks(self, models, tasks):
        with pytest.raises(
            EvaluationError, match=r"there is no task 'toy_z': in .* there are toy, toy_a, toy_b, toy_text"
        ):
            score(models / "base", ["toy_z"], tasks)

    def test_no_language_model(self, tasks):
        with pytest.raises(EvaluationError, match="does not load as a language model"):
            score(demo_paths()["base"], ["toy_a"], tasks)

    def test_a_task_that_cannot_run(self, models, tasks, tmp_path):
        (tmp_path / "bad.yaml").write_text(CHOICE.format(name="bad", data=tmp_path / "gone.jsonl"))
        with pytest.raises(EvaluationError, match="task bad cannot be run"):
            score(models / "base", ["bad"], tmp_path)
