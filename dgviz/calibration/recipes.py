"""What is trained: bases of several architectures, and the fine-tunes that a calibration measures.

A fine-tune is a real run: AdamW on another task than base's. Recipes differ in what is known to make an update more
or less noisy: length, rate, noise in the gradients, storage. Adapters are trained as adapters, and merged.
"""

from dataclasses import dataclass

PICTURES, LANGUAGE, ENCODERS, ADAPTERS = "image classifiers", "language models", "encoders", "merged adapters"
FAMILIES = {
    "vit": PICTURES,
    "convnext": PICTURES,
    "llama": LANGUAGE,
    "llama6": LANGUAGE,
    "llama10m": LANGUAGE,
    "gpt2": LANGUAGE,
    "gpt6": LANGUAGE,
    "gpt10m": LANGUAGE,
    "bert": ENCODERS,
    "bert6": ENCODERS,
}
"""Every architecture and the family of its full fine-tunes; adapters are a family of their own."""
SEEDS = (0, 1)
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Strengths at which WiSE-FT is scored."""


@dataclass(frozen=True)
class Recipe:
    """One run of AdamW (betas .9 and .999, weight decay .01) over random batches.

    Attributes
    ----------
    steps : int
        Number of steps; the task says how many examples are in one.
    learning_rate : float
        Peak rate; constant unless `warmup` is positive.
    warmup : int
        Steps of linear warm-up, after which the rate falls along half a cosine to 0; 0 for a constant rate.
    clip_norm : float or None
        Largest norm of the batch gradient over all parameters together.
    noise : float
        Standard deviation of the Gaussian noise added to every entry of the clipped gradient.
    dtype : str
        In which base and tuned are stored.
    rank : int
        Of a LoRA adapter on all linear layers, merged afterwards; 0 for a full fine-tune.
    """

    steps: int
    learning_rate: float
    warmup: int = 0
    clip_norm: float | None = None
    noise: float = 0.0
    dtype: str = "float32"
    rank: int = 0


BASES = {
    "vit": Recipe(900, 2e-3, warmup=50),
    "convnext": Recipe(600, 3e-3, warmup=50),
    "llama": Recipe(450, 3e-3, warmup=50),
    "gpt2": Recipe(600, 3e-3, warmup=50),
    "bert": Recipe(700, 3e-3, warmup=50),
}
"""How the base of an architecture is trained, from random weights."""
LARGER = {
    "llama6": Recipe(450, 3e-3, warmup=50, clip_norm=1.0),
    "gpt6": Recipe(600, 3e-3, warmup=50, clip_norm=1.0),
    "bert6": Recipe(700, 3e-3, warmup=50, clip_norm=1.0),
    "llama10m": Recipe(300, 1e-3, warmup=50, clip_norm=1.0),
    "gpt10m": Recipe(400, 1e-3, warmup=50, clip_norm=1.0),
}
"""The same of what takes too long for a calibration, and is trained where its pairs are asked for by name."""

FULL = {
    "clean": Recipe(120, 3e-4),
    "noisy": Recipe(150, 5e-4, clip_norm=1.0, noise=1e-3),
    "noisier": Recipe(200, 5e-4, clip_norm=1.0, noise=4e-3),
    "less-noisy": Recipe(120, 5e-4, clip_norm=1.0, noise=2e-4),
    "bf16": Recipe(120, 3e-4, dtype="bfloat16"),
    "fast": Recipe(60, 2e-3),
    "long": Recipe(300, 2e-4),
}
"""Full fine-tunes of every architecture."""

LORA = {
    "lora": Recipe(120, 3e-3, rank=8),
    "lora-bf16": Recipe(120, 3e-3, rank=8, dtype="bfloat16"),
}
"""Adapters on every architecture of `ADAPTED`."""
ADAPTED = ("vit", "llama", "gpt2")


@dataclass(frozen=True)
class Run:
    """One fine-tune of one base: a pair.

    Attributes
    ----------
    architecture, recipe : str
        Keys of `BASES`, and of `FULL` or `LORA`.
    seed : int
        Of base's first weights, of all batches, and of noise.
    """

    architecture: str
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        """What the pair is called."""
        return f"{self.base}-{self.recipe}"

    @property
    def base(self) -> str:
        """What its base is called."""
        return f"{self.architecture}-{self.seed}"

    @property
    def settings(self) -> Recipe:
        """How it is trained."""
        return (FULL | LORA)[self.recipe]

    @property
    def family(self) -> str:
        """What it is left out with."""
        return ADAPTERS if self.settings.rank else FAMILIES[self.architecture]


RUNS = tuple(
    Run(architecture, recipe, seed)
    for seed in SEEDS
    for architecture in BASES
    for recipe in (*FULL, *(LORA if architecture in ADAPTED else ()))
)
"""Every pair of a calibration; those of one base follow each other."""
LARGER_RUNS = tuple(
    Run(architecture, recipe, seed)
    for seed in range(4)
    for architecture in LARGER
    for recipe in ("less-noisy", "noisy")
)
