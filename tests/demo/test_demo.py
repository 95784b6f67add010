"""The demo: the packaged checkpoints are what their scores say, and the code that makes them really makes them."""

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from dgviz import demo
from dgviz.analysis.sweep import sweep_lines
from dgviz.checkpoint import open_pair
from dgviz.demo import data, figure4, packaged, recipe, scores, train
from dgviz.errors import CheckpointError, DgvizError, ExportError
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.law import bulk_edge
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import RULES

PIXELS = np.arange(2 * 64, dtype=np.float32).reshape(2, 8, 8)


def rows_of(table):
    """The score rows by (model, benchmark)."""
    return {(row["model"], row["benchmark"]): row for row in table["scores"]}


def weights(directory):
    return load_file(directory / "model.safetensors")


def few_steps(steps=(4, 3, 3)):
    return tuple(
        dataclasses.replace(phase, steps=count, warmup=min(phase.warmup, 1))
        for phase, count in zip(recipe.PHASES, steps, strict=True)
    )


class TestData:
    def test_every_fourth_digit_is_held_out_and_no_other(self):
        from sklearn.datasets import load_digits

        train_part, held_out = data.load_digits_split()
        assert (train_part.labels.size, held_out.labels.size) == (1348, 449)
        everything = load_digits()
        np.testing.assert_array_equal(held_out.labels, everything.target[3::4])
        np.testing.assert_allclose(held_out.images, everything.images[3::4] / 8 - 1)
        np.testing.assert_array_equal(train_part.labels, np.delete(everything.target, np.s_[3::4]))
        known = {image.tobytes() for image in train_part.images}
        assert not any(image.tobytes() in known for image in held_out.images)

    def test_views_are_what_their_names_say(self):
        top_right = PIXELS[:, 0, 7]
        np.testing.assert_array_equal(data.apply_view(PIXELS, "plain"), PIXELS)
        np.testing.assert_array_equal(data.apply_view(PIXELS, "negative"), -PIXELS)
        np.testing.assert_array_equal(data.apply_view(PIXELS, "rotated")[:, 0, 0], top_right)
        np.testing.assert_array_equal(data.apply_view(PIXELS, "transposed")[:, 7, 0], top_right)
        four_times = PIXELS
        for _ in range(4):
            four_times = data.apply_view(four_times, "rotated")
        np.testing.assert_array_equal(four_times, PIXELS)

    def test_the_target_shuffles_every_pixel_the_same_way(self):
        assert sorted(data.PIXEL_PERMUTATION) == list(range(64))
        shuffled = data.apply_view(PIXELS, "target").reshape(2, 64)
        np.testing.assert_array_equal(shuffled[0], data.PIXEL_PERMUTATION)
        np.testing.assert_array_equal(shuffled[1] - shuffled[0], 64)

    def test_an_unknown_view_is_named(self):
        with pytest.raises(ValueError, match="'mirrored'; known: plain, negative, rotated, transposed, target"):
            data.apply_view(PIXELS, "mirrored")


class TestPackaged:
    def test_checkpoints_load_completely(self):
        from transformers import AutoModelForImageClassification

        for name, path in demo.demo_paths().items():
            model, info = AutoModelForImageClassification.from_pretrained(path, output_loading_info=True)
            assert not any(info.values()), (name, info)
            assert type(model).__name__ == "ViTForImageClassification"
            assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
            assert sum(parameter.numel() for parameter in model.parameters()) == 534_410

    def test_both_pairs_are_accepted(self):
        paths = demo.demo_paths()
        for tuned in ("clean", "noisy"):
            pair = open_pair(paths["base"], paths[tuned])
            assert pair.counts() == {"repair": 26, "keep": len(pair.tensors) - 26, "base_only": 0}

    @pytest.mark.slow
    def test_some_scores_are_reproduced(self, tmp_path):
        """Models of every kind, the repaired ones exported anew; another processor may flip a picture or two.

        Everything else in the file is compared exactly, so that it cannot fall behind the recipe.
        """
        written, frontier = demo.demo_scores(), demo.read_frontier()
        assert list(written["models"]) == list(scores.SCORED_MODELS) and len(written["scores"]) == 51 * 6
        chosen = ("base", "noisy", "clean/dg_hard", "noisy/dg_hard", "noisy/ties")
        *names, (table, nothing) = scores.iter_tables(packaged.CHECKPOINTS, recipe.PHASES, chosen, ())
        assert sorted(names) == sorted(chosen) and nothing == {}
        # Through JSON, so that tuples compare equal to the lists they become.
        table = json.loads(json.dumps(table))
        for key in ("benchmarks", "split", "recipe"):
            assert table[key] == written[key]
        assert table["models"] == {name: written["models"][name] for name in chosen}
        found, expected = rows_of(table), rows_of(written)
        assert len(found) == len(chosen) * 6
        for key, row in found.items():
            assert row["n"] == expected[key]["n"] == 449
            assert row["score"] == pytest.approx(expected[key]["score"], abs=2.1 / 449), key
            assert row["stderr"] == pytest.approx(expected[key]["stderr"], abs=0.003), key
        for tuned in ("clean", "noisy"):
            assert table["spectra"][tuned] == pytest.approx(written["spectra"][tuned], rel=1e-3)
        (point,) = [p for p in frontier["noisy"]["lines"][0]["points"] if p["label"] == "dg_hard"]
        for benchmark, row in point["scores"].items():
            assert row == {name: expected["noisy/dg_hard", benchmark][name] for name in ("score", "stderr", "n")}

    def test_scores_and_frontier_agree_and_are_of_the_registry(self):
        """What both files hold was measured once; ends and names are those of the registry today."""
        score = rows_of(demo.demo_scores())
        for tuned, sweep in demo.read_frontier().items():
            lines = sweep_lines([RepairPlan(method=name) for name in scores.SWEPT_METHODS], every=True)
            assert [line["label"] for line in sweep["lines"]] == [line.label for line in lines]
            for line, planned in zip(sweep["lines"], lines, strict=True):
                labels = [(point["value"], point["label"]) for point in line["points"]]
                assert labels == [(value, plan.label) for value, plan in planned.points]
                for point in line["points"]:
                    name = f"{tuned}/{point['label'].replace('wise_ft:alpha=', 'wise_ft_')}"
                    for benchmark, row in point["scores"].items():
                        if (name, benchmark) in score:
                            assert row["score"] == score[name, benchmark]["score"]
            for end, model in (("base", "base"), ("tuned", tuned)):
                for benchmark, row in sweep["ends"][end].items():
                    assert row["score"] == score[model, benchmark]["score"]
            (wise_ft,) = [line for line in sweep["lines"] if line["method"] == "wise_ft"]
            assert wise_ft["points"][0]["scores"] == sweep["ends"]["base"]
            assert wise_ft["points"][-1]["scores"] == sweep["ends"]["tuned"]

    def test_a_frontier_that_is_none(self, tmp_path):
        assert demo.read_frontier(tmp_path) is None
        for text in ("{", "[]", '{"clean": {"lines": []}}'):
            (tmp_path / "frontier.json").write_text(text)
            with pytest.raises(CheckpointError, match=r"frontier\.json .*write the demo out again"):
                demo.read_frontier(tmp_path)

    @pytest.mark.soak
    def test_scoring_all_again_gives_the_packaged_tables(self, tmp_path):
        """Bit for bit on the machine and with the versions that made them; elsewhere within a picture or two."""
        for event in demo.score_demo(tmp_path / "demo"):
            print(event.done, event.total, event.message)
        files = demo.demo_files(tmp_path / "demo")
        equal = {
            name: files[name].read_bytes() == demo.demo_files(packaged.CHECKPOINTS)[name].read_bytes()
            for name in ("scores", "frontier")
        }
        print(f"equal bytes: {equal}")
        found, expected = rows_of(demo.read_scores(tmp_path / "demo")), rows_of(demo.demo_scores())
        assert found.keys() == expected.keys()
        for key, row in expected.items():
            assert found[key]["score"] == pytest.approx(row["score"], abs=2.1 / 449), key
        for tuned, sweep in demo.read_frontier(tmp_path / "demo").items():
            for line, known in zip(sweep["lines"], demo.read_frontier()[tuned]["lines"], strict=True):
                for point, other in zip(line["points"], known["points"], strict=True):
                    assert point["norm_kept"] == pytest.approx(other["norm_kept"], rel=1e-4)
                    for benchmark, row in point["scores"].items():
                        assert row["score"] == pytest.approx(other["scores"][benchmark]["score"], abs=2.1 / 449)

    def test_the_demo_shows_what_it_is_there_to_show(self):
        """The two situations the dashboard is opened on: an update without noise, and one drowned in it."""
        table = demo.demo_scores()
        score = {key: row["score"] for key, row in rows_of(table).items()}
        assert score["base", "held_out"] > 0.95 and score["base", "target"] < 0.12
        for tuned in ("clean", "noisy"):
            assert score[tuned, "target"] > 0.9
            assert score[tuned, "held_out"] < score["base", "held_out"] - 0.2
        assert table["spectra"]["clean"]["median_energy_kept"] > 0.9
        assert table["spectra"]["noisy"]["median_energy_kept"] < 0.3
        assert table["spectra"]["noisy"]["median_mp_fit"] > 95

    def test_importing_the_demo_brings_nothing_heavy(self):
        heavy = "{'torch', 'transformers', 'sklearn'}"
        code = f"import sys, dgviz.demo as d; d.demo_scores(); print({heavy} & set(sys.modules))"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "set()"


class TestEvaluate:
    def test_stderr_of_the_mean_counts_pictures_not_views(self):
        result = demo.evaluate(demo.demo_paths()["noisy"])
        mean = np.mean([result[view]["score"] for view in data.VIEWS])
        assert result["held_out"]["score"] == pytest.approx(mean, abs=1e-12)
        four_times_the_pictures = np.sqrt(mean * (1 - mean) / (4 * 449))
        assert result["held_out"]["stderr"] < result["plain"]["stderr"]
        assert result["held_out"]["stderr"] != pytest.approx(four_times_the_pictures, rel=0.01)

    def test_missing_weights_are_an_error_not_a_random_head(self, tmp_path):
        source = demo.demo_paths()["base"]
        tensors = {name: tensor for name, tensor in weights(source).items() if name != "classifier.bias"}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        shutil.copyfile(source / "config.json", tmp_path / "config.json")
        with pytest.raises(CheckpointError, match=r"1 missing keys, first classifier\.bias"):
            demo.evaluate(tmp_path)

    def test_a_model_of_another_kind_is_refused(self, tmp_path):
        from transformers import ViTConfig, ViTForImageClassification

        other = ViTForImageClassification(ViTConfig(**recipe.MODEL | {"image_size": 16}))
        other.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"\(16, 1, 10\), the digits have \(8, 1, 10\)"):
            demo.evaluate(tmp_path)

    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(CheckpointError, match="no checkpoint directory"):
            demo.evaluate(tmp_path / "absent")
        with pytest.raises(CheckpointError, match="does not load as an image classifier"):
            demo.evaluate(tmp_path)


class TestWriteDemo:
    def test_writes_the_packaged_files_and_again_changes_nothing(self, tmp_path):
        target = tmp_path / "a" / "demo"
        written = demo.write_demo(target)
        assert written == demo.demo_files(target)
        for name in packaged._demo_file_names():
            assert (target / name).read_bytes() == (packaged.CHECKPOINTS / name).read_bytes()
        assert len([path for path in target.rglob("*") if path.is_file()]) == 8
        before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
        assert demo.write_demo(target) == written
        assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
        assert demo.read_scores(target) == demo.demo_scores()
        assert demo.read_frontier(target) == demo.read_frontier()

    def test_a_missing_file_is_added(self, tmp_path):
        demo.write_demo(tmp_path)
        lost = tmp_path / "noisy" / "config.json"
        lost.unlink()
        demo.write_demo(tmp_path)
        assert lost.read_bytes() == (demo.demo_paths()["noisy"] / "config.json").read_bytes()

    def test_foreign_and_changed_files_are_refused_and_kept(self, tmp_path):
        note = tmp_path / "note.txt"
        note.write_text("mine")
        with pytest.raises(ExportError, match=r"not empty and note\.txt in it is not a file of this demo"):
            demo.write_demo(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
        note.unlink()
        demo.write_demo(tmp_path)
        (tmp_path / "base" / "config.json").write_text("{}")
        with pytest.raises(ExportError, match=r"base/config\.json in it is not a file of this demo"):
            demo.write_demo(tmp_path)
        assert (tmp_path / "base" / "config.json").read_text() == "{}"

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "demo").write_text("")
        with pytest.raises(ExportError, match="is a file, not a directory"):
            demo.write_demo(tmp_path / "demo")
        with pytest.raises(ExportError, match="cannot write the demo to"):
            demo.write_demo(tmp_path / "demo" / "inside")

    def test_scores_that_are_none(self, tmp_path):
        assert demo.read_scores(tmp_path) is None
        for text in ("{", "[]", '{"scores": [{"model": "base"}]}'):
            (tmp_path / "scores.json").write_text(text)
            with pytest.raises(CheckpointError, match=r"scores\.json .*write the demo out again"):
                demo.read_scores(tmp_path)


class TestTrain:
    @pytest.mark.slow
    def test_a_short_training_writes_a_whole_demo(self, tmp_path):
        phases = few_steps()
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        threads = torch.get_num_threads()
        models = ("base", "clean", "clean/dg_hard")
        events = list(demo.train_demo(tmp_path / "new", phases, models, ()))
        assert torch.rand(1) == expected and torch.get_num_threads() == threads
        done = [event.done for event in events]
        assert done == sorted(set(done)) and done[-1] == events[0].total == 10 + 3
        files = demo.demo_files(tmp_path / "new")
        assert sorted((tmp_path / "new").iterdir()) == sorted(files.values())
        assert demo.read_frontier(tmp_path / "new") == {}
        base = weights(files["base"])
        packaged_names = {name: tensor.shape for name, tensor in weights(demo.demo_paths()["base"]).items()}
        assert {name: tensor.shape for name, tensor in base.items()} == packaged_names
        assert not torch.equal(train.build_model().state_dict()["classifier.weight"], base["classifier.weight"])
        for tuned in ("clean", "noisy"):
            moved = weights(files[tuned])["classifier.weight"] - base["classifier.weight"]
            # AdamW moves an entry by at most about its learning rate per step, so few steps stay close to the base.
            assert 0 < moved.abs().max() < 0.01
        table = demo.read_scores(tmp_path / "new")
        assert [phase["steps"] for phase in table["recipe"]["phases"]] == [4, 3, 3]
        assert table["versions"]["torch"] == version("torch")
        assert len(table["scores"]) == 3 * 6
        rows = demo.evaluate(files["clean"])
        assert rows_of(table)["clean", "target"]["score"] == rows["target"]["score"]
        with pytest.raises(ExportError, match=r"not empty \(it holds base\)"):
            next(demo.train_demo(tmp_path / "new", phases))

    def test_the_same_seed_gives_the_same_bits(self):
        """On one machine; one thread, so it must not matter how many the caller uses."""
        digits, _ = data.load_digits_split()
        phase = dataclasses.replace(recipe.NOISY, steps=3)
        models, threads = [train.build_model() for _ in range(3)], torch.get_num_threads()
        runs = [phase, phase, dataclasses.replace(phase, seed=phase.seed + 1)]
        try:
            for model, run, count in zip(models, runs, (1, 2, 1), strict=True):
                torch.set_num_threads(count)
                assert [step for step, _ in train.iter_training(model, run, digits)] == [3]
        finally:
            torch.set_num_threads(threads)
        first, second, other = (model.state_dict() for model in models)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["classifier.weight"], other["classifier.weight"])

    def test_gradients_are_clipped_and_then_noised(self):
        model = train.build_model()
        draws = torch.Generator().manual_seed(0)

        def privatised(clip_norm=None, noise=0.0):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.5)
            train.privatise_gradient(list(model.parameters()), clip_norm, noise, draws)
            return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).double()

        assert torch.equal(privatised(), torch.full((534_410,), 0.5, dtype=torch.float64))
        assert privatised(clip_norm=1.0).norm().item() == pytest.approx(1.0, rel=1e-4)
        noisy = privatised(clip_norm=1.0, noise=1e-3)
        assert noisy.std().item() == pytest.approx(1e-3, rel=0.01)
        assert noisy.mean().item() == pytest.approx(1 / np.sqrt(534_410), rel=0.01)

    def test_the_rate_warms_up_and_falls(self):
        factors = [train.rate_factor(step, 10, 100) for step in range(100)]
        assert factors[0] == 0.1 and factors[9] == factors[10] == 1.0 and factors[99] < 0.01
        assert factors[10:] == sorted(factors[10:], reverse=True)
        assert train.rate_factor(99, 0, 300) == 1.0

    def test_stopping_leaves_nothing(self, tmp_path):
        events = demo.train_demo(tmp_path, few_steps((20, 1, 1)))
        assert next(events).done == 10
        events.close()
        assert list(tmp_path.iterdir()) == []

    def test_divergence_is_an_error(self):
        digits, _ = data.load_digits_split()
        phase = dataclasses.replace(recipe.CLEAN, steps=10, learning_rate=1e30)
        with pytest.raises(DgvizError, match="training clean diverged: loss nan after 10 steps"):
            list(train.iter_training(train.build_model(), phase, digits))

    @pytest.mark.soak
    def test_the_whole_recipe_makes_the_packaged_demo(self, tmp_path):
        """Bit-equal on the machine that made it; elsewhere rounding differs and so do the models, within noise.

        The bound is five standard errors of a difference, plus room for what another random path of training changes.
        """
        for event in demo.train_demo(tmp_path / "demo"):
            print(event.done, event.total, event.message)
        found, expected = rows_of(demo.read_scores(tmp_path / "demo")), rows_of(demo.demo_scores())
        assert found.keys() == expected.keys()
        equal = [
            name
            for name, path in demo.demo_paths().items()
            if (path / "model.safetensors").read_bytes()
            == (tmp_path / "demo" / name / "model.safetensors").read_bytes()
        ]
        differences = {key: found[key]["score"] - row["score"] for key, row in expected.items()}
        worst = max(differences, key=lambda key: abs(differences[key]))
        print(f"bit-equal checkpoints: {equal}; largest score difference {differences[worst]:+.4f} at {worst}")
        for key, difference in differences.items():
            spread = np.hypot(found[key]["stderr"], expected[key]["stderr"])
            assert abs(difference) <= 5 * spread + 0.1, (key, difference)


class TestFigure4:
    SHAPE = (512, 192)

    def test_the_pair_holds_the_planted_update(self, tmp_path):
        paths = demo.write_figure4_pair(tmp_path / "pair", shape=self.SHAPE, spikes=8)
        pair = open_pair(paths["base"], paths["tuned"])
        assert [(paired.name, paired.action) for paired in pair.tensors] == [(figure4.WEIGHT, "repair")]
        base, tuned = (load_arrays(path / "model.safetensors")[figure4.WEIGHT] for path in paths.values())
        assert base.shape == tuned.shape == self.SHAPE and base.dtype == tuned.dtype == np.float32
        generator = np.random.default_rng(figure4.SEED)
        generator.standard_normal(self.SHAPE, dtype=np.float32)
        planted = figure4.figure4_delta(generator, self.SHAPE, 8)
        lost = np.linalg.norm((tuned - base).astype(np.float64) - planted) / np.linalg.norm(planted)
        assert lost < 1e-7
        s = np.linalg.svd(tuned - base, compute_uv=False)
        threshold = RULES["dg_hard"].apply(s, self.SHAPE)
        assert threshold.rank == 8
        assert threshold.sigma == pytest.approx(1.0, abs=0.03)
        # Noise of unit variance lengthens a planted direction x to sqrt((x^2 + m)(x^2 + n)) / x.
        strengths = (bulk_edge(1.0, self.SHAPE) * np.geomspace(1.6, 12.0, 8))[::-1]
        lengthened = np.sqrt((strengths**2 + 512) * (strengths**2 + 192)) / strengths
        np.testing.assert_allclose(s[:8], lengthened, rtol=0.06)
        fit = Spectrum(s, self.SHAPE, {}).mp_fits(threshold.sigma, 8)
        assert fit["repaired"] == pytest.approx(100 * 8 / 192)
        assert 90 < fit["tuned"] < fit["discarded"] < 99

    def test_a_directory_with_something_in_it_is_refused(self, tmp_path):
        (tmp_path / "note.txt").write_text("mine")
        with pytest.raises(ExportError, match=r"not empty \(it holds note\.txt\)"):
            demo.write_figure4_pair(tmp_path, shape=self.SHAPE, spikes=8)
        with pytest.raises(ValueError, match="192 directions; got 193 spikes"):
            demo.write_figure4_pair(tmp_path / "pair", shape=self.SHAPE, spikes=193)

    @pytest.mark.soak
    def test_at_full_size_dg_hard_keeps_exactly_the_planted_directions(self, tmp_path):
        paths = demo.write_figure4_pair(tmp_path / "pair")
        base, tuned = (
            torch.from_numpy(load_arrays(path / "model.safetensors")[figure4.WEIGHT]) for path in paths.values()
        )
        s = torch.linalg.svdvals(tuned - base).double().numpy()
        threshold = RULES["dg_hard"].apply(s, figure4.SHAPE)
        fit = Spectrum(s, figure4.SHAPE, {}).mp_fits(threshold.sigma, threshold.rank)
        assert threshold.rank == figure4.SPIKES
        assert [round(fit[part], 1) for part in ("tuned", "repaired", "discarded")] == [94.7, 1.0, 95.7]


def test_phases_share_nothing_by_accident():
    """Base, clean and noisy in this order; fine-tunes see only the target, base never does."""
    assert [phase.model for phase in recipe.PHASES] == list(packaged.MODELS)
    assert data.TARGET not in recipe.BASE.views
    assert recipe.CLEAN.views == recipe.NOISY.views == (data.TARGET,)
    assert len(set(itertools.chain(*(phase.views for phase in recipe.PHASES)))) == 5
