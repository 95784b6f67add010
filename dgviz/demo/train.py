"""Making the demo anew: train, score, write.

Everything random comes from seeded generators of its own, and the training runs on one CPU thread, where sums are
always taken in the same order. On one machine with the same library versions the checkpoints therefore come out
bit-equal. Another processor or another version of torch rounds differently; small differences grow over the steps,
and then only the scores agree, within a few standard errors.
"""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dgviz.demo.data import Digits, apply_view, load_digits_split
from dgviz.demo.evaluation import one_thread, quiet_transformers
from dgviz.demo.packaged import checkpoint_files, copy_packaged, demo_files, new_directory
from dgviz.demo.recipe import INITIAL_SEED, MODEL, PHASES, Phase
from dgviz.demo.scores import SCORED_MODELS, SWEPT_METHODS, count_steps, iter_tables
from dgviz.errors import DgvizError
from dgviz.files import write_file
from dgviz.packages import need

if TYPE_CHECKING:
    import torch
    from torch import nn

_STEPS_PER_EVENT = 10


@dataclass(frozen=True)
class DemoEvent:
    """Progress: `done` of `total` steps (training steps, and one for every model scored)."""

    done: int
    total: int
    message: str


def train_demo(
    directory: str | Path,
    phases: tuple[Phase, ...] = PHASES,
    models: Sequence[str] = SCORED_MODELS,
    methods: Sequence[str] = SWEPT_METHODS,
) -> Iterator[DemoEvent]:
    """Train base, clean and noisy, score them and their repairs, and write all of it; a generator of progress.

    Takes about three minutes of one core, and a second or two for every model scored. The directory fills at the end:
    before that, closing the generator leaves nothing behind.

    Parameters
    ----------
    directory : str or Path
        New or empty; afterwards it holds what `dgviz.demo.demo_files` names.
    phases : (Phase, Phase, Phase)
        Base, clean and noisy, in this order; the first starts from random weights, the others from the first.
    models, methods : sequence of str
        What is scored and swept, see `dgviz.demo.scores.iter_tables`.

    Yields
    ------
    DemoEvent
        Every few steps, and after every model scored.

    Raises
    ------
    ExportError
        If the directory is not empty or cannot be written.
    DgvizError
        If a loss is not finite.
    """
    total = sum(phase.steps for phase in phases) + count_steps(models, methods)
    done = 0
    train, _ = load_digits_split()
    with new_directory(directory) as unfinished:
        folders = demo_files(unfinished)
        base = build_model()
        for phase in phases:
            model = base if phase is phases[0] else copy.deepcopy(base)
            for step, loss in iter_training(model, phase, train):
                message = f"{phase.model}: step {step} of {phase.steps}, loss {loss:.3f}"
                yield DemoEvent(done + step, total, message)
            done += phase.steps
            with quiet_transformers():
                model.save_pretrained(folders[phase.model])
        yield from _write_tables(unfinished, phases, models, methods, done, total)


def score_demo(
    directory: str | Path, models: Sequence[str] = SCORED_MODELS, methods: Sequence[str] = SWEPT_METHODS
) -> Iterator[DemoEvent]:
    """Copy the packaged checkpoints, and score them, their repairs and the sweeps anew; a generator of progress.

    Takes a second or two for every model scored.

    Parameters
    ----------
    directory : str or Path
        New or empty; afterwards it holds what `dgviz.demo.demo_files` names.
    models, methods : sequence of str
        What is scored and swept, see `dgviz.demo.scores.iter_tables`.

    Yields
    ------
    DemoEvent
        After every model scored.

    Raises
    ------
    ExportError
        If the directory is not empty or cannot be written.
    """
    with new_directory(directory) as unfinished:
        copy_packaged(checkpoint_files(), unfinished)
        yield from _write_tables(unfinished, PHASES, models, methods, 0, count_steps(models, methods))


def _write_tables(
    folder: Path, phases: tuple[Phase, ...], models: Sequence[str], methods: Sequence[str], done: int, total: int
) -> Iterator[DemoEvent]:
    """Score the checkpoints in a folder and write both tables beside them."""
    files = demo_files(folder)
    for scored in iter_tables(folder, phases, models, methods):
        if isinstance(scored, str):
            done += 1
            yield DemoEvent(done, total, f"scored {scored}")
            continue
        for name, table in zip(("scores", "frontier"), scored, strict=True):
            text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
            write_file(files[name], text.encode())


def build_model(seed: int = INITIAL_SEED) -> "nn.Module":
    """Return the demo's vision transformer with random weights, about 0.53 million parameters in float32."""
    need("Training the demo", "transformers")
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViTForImageClassification(ViTConfig(**MODEL))


def iter_training(model: "nn.Module", phase: Phase, digits: Digits) -> Iterator[tuple[int, float]]:
    """Train a model in place through one phase."""
    import torch

    labels = torch.from_numpy(digits.labels)
    pixels = torch.stack([torch.from_numpy(apply_view(digits.images, view)) for view in phase.views]).unsqueeze(2)
    draws = torch.Generator().manual_seed(phase.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.learning_rate, weight_decay=phase.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, phase.warmup, phase.steps))
    model.train()
    for first in range(0, phase.steps, _STEPS_PER_EVENT):
        last = min(first + _STEPS_PER_EVENT, phase.steps)
        with one_thread():
            for _ in range(first, last):
                picture = torch.randint(len(labels), (phase.batch,), generator=draws)
                view = torch.randint(len(phase.views), (phase.batch,), generator=draws)
                shown = pixels[view, picture]
                if phase.pixel_noise > 0:
                    shown = shown + phase.pixel_noise * torch.randn(shown.shape, generator=draws)
                optimizer.zero_grad()
                loss = model(pixel_values=shown, labels=labels[picture]).loss
                loss.backward()
                privatise_gradient(list(model.parameters()), phase.clip_norm, phase.noise, draws)
                optimizer.step()
                rate.step()
        if not math.isfinite(loss.item()):
            raise DgvizError(
                f"training {phase.model} diverged: loss {loss.item()} after {last} steps at learning rate "
                f"{phase.learning_rate}; lower the rate"
            )
        yield last, loss.item()
    model.eval()


def rate_factor(step: int, warmup: int, steps: int) -> float:
    """Return the learning rate of a step as a share of its peak; without warm-up it is constant."""
    if warmup == 0:
        return 1.0
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def privatise_gradient(
    parameters: Sequence["nn.Parameter"], clip_norm: float | None, noise: float, draws: "torch.Generator"
) -> None:
    """Clip the batch gradient and add noise to it, where that is asked for."""
    import torch

    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    if noise > 0:
        for parameter in parameters:
            parameter.grad.add_(torch.randn(parameter.shape, generator=draws), alpha=noise)
