"""Accuracy of a demo checkpoint on the held-out digits: the four views and the target."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dgviz.demo.data import TARGET, VIEWS, apply_view, load_digits_split
from dgviz.errors import CheckpointError
from dgviz.packages import need

HELD_OUT = "held_out"
"""Name of the mean over the four views the base model was trained on."""


def evaluate(checkpoint_dir: str | Path) -> dict[str, dict[str, float]]:
    """Return the accuracy of an image classifier on the held-out digits, by benchmark.

    Parameters
    ----------
    checkpoint_dir : str or Path
        A checkpoint of the demo's architecture, base, tuned or repaired; it is loaded with transformers'
        ``AutoModelForImageClassification.from_pretrained`` and run on the CPU.

    Returns
    -------
    dict
        For each of ``plain``, ``negative``, ``rotated``, ``transposed``, ``held_out`` (the mean of these four) and
        ``target``: ``{"score", "stderr", "n"}``, the share of the n = 449 pictures classified rightly. The standard
        error is binomial, ``sqrt(score (1 - score) / n)``; that of ``held_out`` is the standard deviation over
        pictures of each one's own mean over the views, by sqrt(n), because the four views of a picture are not
        independent trials.

    Raises
    ------
    CheckpointError
        If the directory is no such checkpoint, or a weight is missing, unexpected or of another shape.
    """
    import torch

    _, held_out = load_digits_split()
    model = _load_model(Path(checkpoint_dir).expanduser())
    correct = {}
    with torch.inference_mode(), one_thread():
        for view in (*VIEWS, TARGET):
            pixels = torch.from_numpy(apply_view(held_out.images, view)).unsqueeze(1)
            answers = model(pixel_values=pixels).logits.argmax(-1).numpy()
            correct[view] = answers == held_out.labels
    n = held_out.labels.size
    rates = {view: float(hits.mean()) for view, hits in correct.items()}
    results = {view: {"score": p, "stderr": float(np.sqrt(p * (1 - p) / n)), "n": n} for view, p in rates.items()}
    per_picture = np.mean([correct[view] for view in VIEWS], axis=0)
    spread = float(per_picture.std() / np.sqrt(n))
    target = results.pop(TARGET)
    return {**results, HELD_OUT: {"score": float(per_picture.mean()), "stderr": spread, "n": n}, TARGET: target}


def _load_model(directory: Path) -> Any:
    """Load a classifier and refuse one that transformers had to complete or to ignore parts of."""
    need("Scoring the demo", "transformers")
    from transformers import AutoModelForImageClassification

    remedy = "evaluate a checkpoint of the demo, or a repair of one"
    if not directory.is_dir():
        raise CheckpointError(f"there is no checkpoint directory {directory}: {remedy}")
    try:
        with quiet_transformers():
            model, info = AutoModelForImageClassification.from_pretrained(
                directory, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{directory} does not load as an image classifier ({reason}): {remedy}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            name = str(sorted(info[problem])[0])
            raise CheckpointError(
                f"{directory} has {len(info[problem])} {problem.replace('_', ' ')}, first {name}: {remedy}"
            )
    expected = (8, 1, 10)
    found = tuple(getattr(model.config, name, None) for name in ("image_size", "num_channels", "num_labels"))
    if found != expected:
        raise CheckpointError(
            f"{directory} is for image size, channels and labels {found}, the digits have {expected}: {remedy}"
        )
    return model.eval()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread: the order of every sum is fixed, and small matrices gain nothing by more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars for loading and saving off stderr."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
