"""How the demo's three checkpoints are made: one base model and two fine-tunes of it, from fixed seeds.

The base is trained on four views of the digits. Both fine-tunes start from it and learn the same new task, the
shuffled pixels, and nothing else; they forget some of the views. *clean* is an ordinary fine-tune: its update has a
long, smoothly decaying spectrum and hardly any noise. *noisy* adds Gaussian noise to every batch gradient, as private
training does: its update is a few strong directions in a sea of noise, the situation DG-Hard is made for.
"""

from dataclasses import asdict, dataclass
from typing import Any

from dgviz.demo.data import PIXEL_PERMUTATION, TARGET, VIEWS

INITIAL_SEED = 0
MODEL = {
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "id2label": {digit: str(digit) for digit in range(10)},
    "label2id": {str(digit): digit for digit in range(10)},
}


@dataclass(frozen=True)
class Phase:
    """One run of AdamW (betas .9 and .999) over random batches, drawn with replacement.

    Attributes
    ----------
    model : str
        Checkpoint it makes.
    views : tuple of str
        Every picture of a batch is shown in one of these, at random.
    steps, batch : int
        Number of steps, pictures per step.
    learning_rate : float
        Peak rate; constant unless `warmup` is positive.
    warmup : int
        Steps of linear warm-up, after which the rate falls along half a cosine to 0; 0 for a constant rate.
    weight_decay : float
        AdamW's.
    clip_norm : float or None
        Largest norm of the batch gradient over all parameters together.
    noise : float
        Standard deviation of the Gaussian noise added to every entry of the clipped gradient.
    pixel_noise : float
        Standard deviation of the Gaussian noise added to every pixel (ink runs from -1 to 1) in training.
    seed : int
        Of batches and of both kinds of noise.
    """

    model: str
    views: tuple[str, ...]
    steps: int
    batch: int
    learning_rate: float
    seed: int
    warmup: int = 0
    weight_decay: float = 0.01
    clip_norm: float | None = None
    noise: float = 0.0
    pixel_noise: float = 0.0


# Without pixel noise the base learns the 1348 training pictures by heart: .935 on the held-out views instead of .964.
BASE = Phase("base", VIEWS, steps=2000, batch=64, learning_rate=1e-3, warmup=100, pixel_noise=0.3, seed=1)
CLEAN = Phase("clean", (TARGET,), steps=300, batch=32, learning_rate=3e-4, seed=2)
NOISY = Phase("noisy", (TARGET,), steps=400, batch=32, learning_rate=5e-4, clip_norm=1.0, noise=1e-3, seed=2)
PHASES = (BASE, CLEAN, NOISY)


def describe_recipe(phases: tuple[Phase, ...] = PHASES) -> dict[str, Any]:
    """Return the recipe as plain JSON values, for ``scores.json``."""
    return {
        "model": {"architecture": "ViTForImageClassification", **MODEL, "initial_seed": INITIAL_SEED},
        "optimizer": "AdamW",
        "pixel_permutation": list(PIXEL_PERMUTATION),
        "phases": [asdict(phase) for phase in phases],
    }
