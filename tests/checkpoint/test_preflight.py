"""The preflight: one table, totals in words, and a notice with a remedy for everything surprising."""

import json
import re
import shlex

import pytest
import torch

from dgviz.checkpoint import inspect_pair, open_pair, read_preflight
from dgviz.checkpoint.actions import CAUSES
from dgviz.cli import main
from dgviz.errors import PairError
from dgviz.export import plan_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoint.test_adapter import UP, factors, write_adapter
from tests.checkpoint.test_names import stored, write_tokenizer
from tests.checkpoint.test_quantised import FP8, float8_blocks
from tests.checkpoints import planted_update, random_tensors, tiny_model, tune, write_checkpoint

EMBEDDING = "model.embed_tokens.weight"
PLAIN = {"model_type": "llama", "vocab_size": 96}


def write(directory, base=None, tuned=None, config=PLAIN, tuned_config=None):
    """Write a base and a tuned checkpoint; what is not given is the usual."""
    tensors = random_tensors() if base is None else base
    first = write_checkpoint(directory / "base", tensors, config)
    tuned = planted_update(tensors) if tuned is None else tuned
    return first, write_checkpoint(directory / "tuned", tuned, config if tuned_config is None else tuned_config)


def preflight(*paths, **choice):
    return read_preflight(inspect_pair(*paths, **choice))


def notices(*paths, **choice):
    """Return the notices by their code; each has a message and a remedy in one line."""
    found = preflight(*paths, **choice).notices
    for notice in found:
        assert notice.message.endswith(".") and notice.remedy and "\n" not in notice.sentence
    severities = [notice.severity for notice in found]
    assert severities == sorted(severities, key=["blocks", "warning", "info"].index)
    assert len({notice.code for notice in found}) == len(found)
    return {notice.code: notice for notice in found}


# --- the table and its totals ---------------------------------------------------------------------------------------


def test_the_totals_in_words(tmp_path):
    tensors = random_tensors()
    tuned = planted_update(tensors) | {"extra.weight": torch.randn(64, 64)}
    del tuned["model.conv.weight"]
    paths = write(tmp_path, tensors, tuned)
    found = preflight(*paths, exclude=r"layers\.10")
    assert found.summary == (
        "4 of 12 tensors will be repaired, 3 kept because 1-D, 1 kept because smaller than 1024 elements, 1 kept "
        "because not floating point, 1 kept by --exclude, 1 kept because only in tuned, 1 only in base and not "
        "written; the repaired hold 66.2 % of the parameters in matrices."
    )
    assert found.totals.share == pytest.approx(12544 / 18944)
    assert sum(found.totals.causes.values()) == found.totals.tensors == len(found.rows) == 12
    written = sum(tensor.nbytes for tensor in tuned.values())
    assert found.totals.nbytes["repair"] + found.totals.nbytes["keep"] == written


def test_every_row_shows_both_sides(tmp_path):
    tensors = {name: tensor.double() if name == "model.pos" else tensor for name, tensor in random_tensors().items()}
    paths = write(tmp_path, tensors, planted_update(random_tensors()) | {"new": torch.zeros(3)})
    rows = {row.name: row for row in preflight(*paths).rows}
    pos = rows["model.pos"]
    assert (pos.base.dtype, pos.base.nbytes) == ("float64", 8 * 40 * 32)
    assert (pos.tuned.dtype, pos.tuned.nbytes, pos.side) == ("float32", 4 * 40 * 32, pos.tuned)
    assert rows["new"].base is None and rows["new"].tuned.shape == (3,)
    assert all(row.cause in CAUSES and CAUSES[row.cause][0] == row.action for row in rows.values())


def test_a_pair_without_surprises_has_no_notice(tmp_path):
    tensors = random_tensors()
    tensors = {name: tensor for name, tensor in tensors.items() if name != "model.small.weight"}
    base, tuned = write(tmp_path, tensors)
    for side in (base, tuned):
        write_tokenizer(side, [f"w{number}" for number in range(96)])
    found = preflight(base, tuned)
    assert found.notices == () and found.totals.share == 1
    assert "the repaired hold 100 % of" in found.summary


# --- what blocks ----------------------------------------------------------------------------------------------------


def mismatched(directory):
    """Write a pair with a matrix and a vector of other shapes, a float8 matrix without scales, and a good one."""
    base = random_tensors() | {"a.weight": torch.randn(64, 64), "eight": torch.rand(64, 64)}
    tuned = planted_update(base) | {"a.weight": torch.randn(64, 65), "model.norm.weight": torch.randn(2047)}
    return write(directory, base | {"eight": base["eight"].to(torch.float8_e8m0fnu)}, tuned)


def test_everything_that_blocks_is_there_at_once(tmp_path):
    paths = mismatched(tmp_path)
    found = notices(*paths)
    shapes, eights = found["shape_mismatch"], found["float8"]
    assert shapes.severity == eights.severity == "blocks"
    assert shapes.tensors == ("a.weight", "model.norm.weight") and eights.tensors == ("eight",)
    assert shapes.message.startswith("2 of 13 common tensors differ in shape: 'a.weight' is (64, 64) in base (")
    assert "tensor 'eight' is float8_e8m0fnu in base (" in eights.message
    summary = preflight(*paths).summary
    assert "2 differ in shape, 1 is float8 without scales" in summary
    assert {row.name for row in preflight(*paths).rows} == set(stored(paths[0]))


def test_a_blocked_pair_is_looked_at_and_not_written(tmp_path):
    paths = mismatched(tmp_path)
    pair = inspect_pair(*paths)
    assert EMBEDDING in {row.name for row in pair.repairable}
    for refuse in (lambda: open_pair(*paths), lambda: plan_export(pair, RepairPlan(), tmp_path / "out")):
        with pytest.raises(
            PairError, match=r"2 of 13 common tensors differ in shape.*more stands in the way: see ins"
        ):
            refuse()
    exceptions = "|".join(notice.exclude for notice in pair.blockers)
    named = open_pair(*paths, exclude=exceptions)
    assert named.blockers == () and named["a.weight"].reason == "Excluded by --exclude."


def test_nothing_to_repair_is_shown_with_its_table(tmp_path):
    found = preflight(*write(tmp_path), include="nothing like this")
    assert [notice.code for notice in found.notices if notice.severity == "blocks"] == ["nothing_to_repair"]
    assert "11 times: Not selected by --include" in found.notices[0].message
    assert found.summary.startswith("0 of 11 tensors will be repaired, 11 kept because --include leaves them out; ")


# --- what is surprising ---------------------------------------------------------------------------------------------


def test_few_repaired(tmp_path):
    found = notices(*write(tmp_path), exclude="embed|experts")["few_repaired"]
    assert found.severity == "warning"
    assert found.message == (
        "Only 42.2 % of the parameters in matrices will be repaired, less than 90 %: 1 kept because smaller than "
        "1024 elements, 2 kept by --exclude."
    )


def test_names_that_matched_only_after_renaming(tmp_path):
    tensors = random_tensors()
    paths = write(tmp_path, tensors, {f"_orig_mod.{name}": value for name, value in planted_update(tensors).items()})
    found = notices(*paths)["unwrapped"]
    assert found.severity == "info" and len(found.tensors) == 11
    assert found.message.startswith(
        "11 of 11 tensors matched only after prefixes of training wrappers were taken off"
    )
    model = tiny_model("mixtral")
    model.save_pretrained(tmp_path / "b", save_original_format=True)
    tune(model).save_pretrained(tmp_path / "t", save_original_format=False)
    found = notices(tmp_path / "b", tmp_path / "t")
    assert "transformers' own table" in found["renamed"].message
    assert "stack" in found["experts"].message and len(found["experts"].tensors) == 4


def test_names_that_transformers_could_not_be_asked_about(tmp_path):
    tensors = random_tensors()
    updated = planted_update(tensors).items()
    tuned = {re.sub(r"\W", "_", name) if "layers" in name else name: tensor for name, tensor in updated}
    found = notices(*write(tmp_path, tensors, tuned, {"model_type": "no_such_model"}))
    assert "transformers cannot build this model (KeyError" in found["exact_names"].message
    assert found["exact_names"].severity == "warning"
    assert found["base_only"].message.startswith("3 tensors are only in base and will not be in the repaired model: ")
    assert found["tuned_only"].message.startswith("3 tensors are only in tuned and will be copied as in tuned: ")


@pytest.mark.parametrize("stored_by", ["neither", "tuned", "both"])
def test_a_tied_head(tmp_path, stored_by):
    base = random_tensors()
    tuned = planted_update(base)
    for tensors in {"neither": (), "tuned": (tuned,), "both": (base, tuned)}[stored_by]:
        tensors["lm_head.weight"] = tensors[EMBEDDING].clone()
    paths = write(tmp_path, base, tuned, PLAIN | {"tie_word_embeddings": True})
    found = notices(*paths)["tied_head"]
    assert found.severity == "info"
    assert found.tensors == ((EMBEDDING,) if stored_by == "neither" else ("lm_head.weight",))
    assert ("bit for bit the same" in found.remedy) == (stored_by != "neither")


def test_a_head_that_only_the_config_ties(tmp_path):
    base = random_tensors() | {"lm_head.weight": torch.randn(96, 32)}
    found = notices(*write(tmp_path, base, config=PLAIN | {"tie_word_embeddings": True}))
    assert "lm_head.weight holds other numbers: loaders disagree" in found["untied_head"].message
    assert "tied_head" not in found


@pytest.mark.parametrize(("before", "after"), [(96, 104), (104, 96)])
def test_a_vocabulary_that_differs(tmp_path, before, after):
    rows = torch.randn(104, 32)
    base = random_tensors() | {EMBEDDING: rows[:before]}
    tuned = planted_update(base) | {EMBEDDING: 1.1 * rows[:after]}
    paths = write(tmp_path, base, tuned, {"vocab_size": before}, {"vocab_size": after})
    found = notices(*paths)["vocabulary"]
    assert f"has {before} tokens in base and {after} in tuned: 96 rows of {EMBEDDING} are matched by" in found.message
    assert "by their position" in found.message and "tokenizer.json of base and tuned beside" in found.remedy
    row = next(row for row in preflight(*paths).rows if row.name == EMBEDDING)
    assert (row.base.shape, row.tuned.shape, row.cause) == ((before, 32), (after, 32), "vocabulary")
    for path, count in zip(paths, (before, after), strict=True):
        write_tokenizer(path, [f"w{number}" for number in range(count)])
    found = notices(*paths)
    assert "by tokenizer.json" in found["vocabulary"].message and "missing_tokenizer" not in found


def test_missing_files(tmp_path):
    base, tuned = write(tmp_path)
    assert "no tokenizer beside base or tuned" in notices(base, tuned)["missing_tokenizer"].message
    write_tokenizer(base, ["a", "b"])
    (base / "preprocessor_config.json").write_text("{}")
    found = notices(base, tuned)
    assert found["missing_tokenizer"].message == "There is no tokenizer beside tuned; the output takes base's."
    assert found["missing_processor"].message == "There is no image processor beside tuned; the output takes base's."
    (tuned / "config.json").unlink()
    assert notices(base, tuned)["missing_config"].message == "There is no config.json in tuned."
    (base / "config.json").unlink()
    assert "transformers cannot load the output" in notices(base, tuned)["missing_config"].remedy


def test_different_dtypes(tmp_path):
    tuned = {name: tensor.bfloat16() for name, tensor in planted_update(random_tensors()).items()}
    found = notices(*write(tmp_path, None, tuned))["dtypes"]
    assert found.message == "6 tensors to be repaired differ in dtype: float32 in base and bfloat16 in tuned (6)."


def test_different_configs(tmp_path):
    one = PLAIN | {"hidden_size": 32, "rope_theta": 1e4, "torch_dtype": "float32", "text_config": {"num_layers": 2}}
    two = PLAIN | {"hidden_size": 64, "rope_theta": 1e6, "torch_dtype": "float16", "text_config": {"num_layers": 3}}
    found = notices(*write(tmp_path, config=one, tuned_config=two))
    assert found["config_structure"].message == (
        "The configs differ: hidden_size is 32 in base and 64 in tuned; text_config.num_layers is 2 in base and 3 in "
        "tuned."
    )
    assert found["config_settings"].message.endswith("rope_theta is 10000.0 in base and 1000000.0 in tuned.")
    assert found["config_settings"].severity == "info"


def test_code_is_never_run(tmp_path):
    found = notices(*write(tmp_path, config=PLAIN | {"auto_map": {"AutoModel": "evil.Model"}}))["own_code"]
    assert found.message == "The config of base and tuned refers to code of its own (auto_map), which is never run."


def test_a_dequantised_base(tmp_path):
    tensors = random_tensors()
    codes, scales = float8_blocks(tensors[f"{UP}.weight"], 16, 8)
    base = tensors | {f"{UP}.weight": codes, f"{UP}.weight_scale_inv": scales}
    found = notices(*write(tmp_path, base, planted_update(tensors), FP8, PLAIN))["dequantised"]
    assert found.tensors == (f"{UP}.weight",) and "stored as FP8 and read as" in found.message


def test_an_adapter(tmp_path):
    base = write_checkpoint(tmp_path / "base", random_tensors(), PLAIN)
    paths = base, write_adapter(tmp_path / "adapter", {UP: factors(64, 32)})
    found = notices(*paths)
    assert found["adapter"].tensors == (f"{UP}.weight",)
    assert "few_repaired" not in found and "config_structure" not in found  # the rest is base's own, by construction
    assert "10 kept because the adapter leaves them as in base" in preflight(*paths).summary


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_an_adapter_beside_a_model(tmp_path, side):
    paths = write(tmp_path)
    write_adapter(tmp_path / "adapter", {UP: factors(64, 32)})
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert "adapter_beside" not in notices(*paths)  # of which one alone loads nothing
        (tmp_path / side / name).write_bytes((tmp_path / "adapter" / name).read_bytes())
    found = notices(*paths)["adapter_beside"]
    assert found.severity == "warning" and f"beside the model of {side}: read is the model alone" in found.message
    assert "remove its two files; if not, merge it" in found.remedy


def test_inspect_prints_the_preflight(tmp_path, capsys):
    paths = [str(path) for path in write(tmp_path)]
    assert main(["inspect", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == preflight(*paths).summary
    assert "warning: There is no tokenizer beside base or tuned, so there will be none beside the output." in lines
    assert "    Copy the tokenizer's files into tuned's folder." in lines
    assert lines[-1] == "6 repair, 5 keep, 0 base_only"
    assert main(["inspect", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["summary"] == lines[0] and found["counts"] == {"repair": 6, "keep": 5, "base_only": 0}
    assert {"code", "severity", "message", "remedy", "tensors"} <= found["notices"][0].keys()
    row = next(row for row in found["tensors"] if row["name"] == EMBEDDING)
    assert row["shape"] == [96, 32] and row["dtype"] == "float32" and row["nbytes"] == 4 * 96 * 32
    assert row["base"] == row["tuned"] == {"name": EMBEDDING, "shape": [96, 32], "dtype": "float32", "nbytes": 12288}


def test_a_blocked_pair_on_the_command_line(tmp_path, capsys):
    """The whole table, one sentence for each blocker, and status 2; a repair says the first and writes nothing."""
    paths = [str(path) for path in mismatched(tmp_path)]
    assert main(["inspect", *paths, "--json"]) == 2
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["tensors"]) == 13
    assert len(captured.err.splitlines()) == 2
    assert captured.err.startswith("dgviz inspect: 2 of 13 common tensors differ in shape: ")
    pattern = shlex.split(captured.err.splitlines()[1].partition("--exclude ")[2])[0]
    assert pattern == "^(?:eight)$"
    assert main(["repair", *paths, str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "differ in shape" in captured.err
    assert not (tmp_path / "out").exists()
    assert main(["spectrum", *paths, EMBEDDING, "--json"]) == 0  # looking is not writing
    assert capsys.readouterr().err.startswith("warning: 2 of 13 common tensors differ in shape: ")


# --- what the sides say of each other -------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["config", "card", "state"])
def test_sides_that_look_swapped(tmp_path, by):
    base, tuned = write(tmp_path)
    assert "swapped" not in notices(base, tuned)
    if by == "config":
        (base / "config.json").write_text(json.dumps(PLAIN | {"_name_or_path": str(tuned)}))
    elif by == "card":
        (base / "README.md").write_text("---\nbase_model:\n- tuned\n---\n# A model\n")
    else:
        (base / "trainer_state.json").write_text("{}")
    assert "may be swapped" in notices(base, tuned)["swapped"].message


@pytest.mark.parametrize(("named", "warned"), [("org/base", False), ("/x/base/", False), ("org/other", True)])
def test_an_adapter_that_names_its_base(tmp_path, named, warned):
    base = write_checkpoint(tmp_path / "base", random_tensors(), PLAIN)
    adapter = write_adapter(tmp_path / "a", {UP: factors(64, 32)}, {"base_model_name_or_path": named})
    found = notices(base, adapter)
    assert ("other_base" in found) == warned
    assert not warned or "trained on org/other, by its config, and base is" in found["other_base"].message


def test_a_stale_vocab_size(tmp_path):
    found = notices(*write(tmp_path, config=PLAIN | {"vocab_size": 103}))["stale_vocabulary"]
    assert "says vocab_size = 103, and model.embed_tokens.weight has 96 rows" in found.message


def grown_table(rows):
    return torch.randn(104, 32, generator=torch.Generator().manual_seed(3))[:rows]


@pytest.mark.parametrize("name", ["transformer.wpe.weight", "tok_embedding", "fc_out.weight", "decoder.table"])
@pytest.mark.parametrize("nested", [False, True])
def test_rows_that_agree_are_one_tensor_with_new_rows_whatever_its_name(tmp_path, name, nested):
    base = random_tensors() | {name: grown_table(96), "fc_out.bias": grown_table(96)[:, 0].clone()}
    tuned = planted_update(base) | {name: grown_table(104) + 0.01, "fc_out.bias": grown_table(104)[:, 0] + 0.01}
    sizes = ({"a": {"b": {"vocab_size": 96}}}, {"a": {"b": {"vocab_size": 104}}}) if nested else (PLAIN, PLAIN)
    pair = open_pair(*write(tmp_path, base, tuned, *sizes))
    assert (pair[name].cause, pair[name].rows, pair[name].action) == ("vocabulary", ((0, 96),), "repair")
    assert (pair["fc_out.bias"].cause, pair["fc_out.bias"].action) == ("vector", "keep")


def test_rows_that_do_not_agree_are_another_tensor(tmp_path):
    base = random_tensors() | {"classifier.weight": torch.randn(40, 32)}
    tuned = planted_update(base) | {"classifier.weight": torch.randn(50, 32)}
    assert notices(*write(tmp_path, base, tuned))["shape_mismatch"].tensors == ("classifier.weight",)


def test_a_width_in_the_config_is_no_count(tmp_path):
    """Of a renamed model: transformers is asked, though a number of the config counts modules by its name."""
    config = tiny_model("gpt2").config.to_dict() | {"architectures": ["GPT2LMHeadModel"], "moe_layers_width": 6000}
    tensors = tiny_model("gpt2").state_dict() | {"extra.weight": torch.randn(6000, 2)}
    del tensors["lm_head.weight"]
    tuned = {name.removeprefix("transformer."): value + 0.001 for name, value in tensors.items()}
    pair = open_pair(*write(tmp_path, tensors, tuned, config))
    assert not [notice for notice in pair.notices if notice.code == "exact_names"]
    assert pair.counts()["base_only"] == 0
