"""Training the bases and the fine-tunes of a calibration, each into a checkpoint of its own.

Everything random comes from seeded generators and training runs on one thread: one machine with the same versions
makes the same checkpoints again, another agrees within standard errors.
"""

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dgviz.calibration.models import build_model, load_model, save_model
from dgviz.calibration.recipes import BASES, LARGER, Recipe, Run
from dgviz.calibration.tasks import OWN, find_task
from dgviz.demo.evaluation import one_thread
from dgviz.demo.train import privatise_gradient, rate_factor
from dgviz.errors import DgvizError

if TYPE_CHECKING:
    from torch import nn

_TARGET = "target"


def train_base(architecture: str, seed: int, folder: Path, steps: int | None = None) -> None:
    """Train a base from random weights on its own task, for `steps` at most, into a new folder."""
    recipe = _shortened((BASES | LARGER)[architecture], steps)
    model = build_model(architecture, seed)
    _train(model, architecture, OWN, recipe, seed)
    with _new_folder(folder) as unfinished:
        save_model(model, unfinished, recipe.dtype)


def train_pair(run: Run, base: Path, folder: Path, steps: int | None = None) -> None:
    """Fine-tune a base on the target, into a new folder that holds both sides as they are stored: base and tuned."""
    recipe = _shortened(run.settings, steps)
    model = load_model(base)
    with _new_folder(folder) as unfinished:
        save_model(model, unfinished / "base", recipe.dtype)
        if recipe.rank:
            adapted = _with_adapter(model, recipe.rank, run.seed)
            _train(adapted, run.architecture, _TARGET, recipe, run.seed)
            model = adapted.merge_and_unload()
        else:
            _train(model, run.architecture, _TARGET, recipe, run.seed)
        save_model(model, unfinished / "tuned", recipe.dtype)


def _shortened(recipe: Recipe, steps: int | None) -> Recipe:
    """Return a recipe of so many steps at most."""
    return recipe if steps is None else dataclasses.replace(recipe, steps=min(steps, recipe.steps))


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write into that gets its name when all is written; what a killed run left is replaced."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(folder)


def _with_adapter(model: "nn.Module", rank: int, seed: int) -> "nn.Module":
    """Return a model whose linear layers carry a LoRA adapter each, and nothing else is trained."""
    import peft
    import torch
    from transformers.pytorch_utils import Conv1D

    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    own = [name for name in names if not name.endswith(("lm_head", "classifier"))]
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def _train(model: "nn.Module", architecture: str, side: str, recipe: Recipe, seed: int) -> None:
    """Train a model in place on one side of its task."""
    import torch

    task = find_task(architecture)
    draws = torch.Generator().manual_seed(1000 * (side == _TARGET) + seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, recipe.warmup, recipe.steps))
    model.train()
    with one_thread():
        for step in range(recipe.steps):
            optimizer.zero_grad()
            loss = model(**task.batch(side, task.examples_per_step, draws)).loss
            if not math.isfinite(loss.item()):
                raise DgvizError(
                    f"training {architecture} diverged: loss {loss.item()} after {step} steps at learning rate "
                    f"{recipe.learning_rate}; lower the rate"
                )
            loss.backward()
            privatise_gradient(trained, recipe.clip_norm, recipe.noise, draws)
            optimizer.step()
            rate.step()
    model.eval()
