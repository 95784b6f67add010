"""The digits of scikit-learn as four familiar views and one new task, with a fixed held-out part.

Every picture is 8 x 8, scaled from 0..16 to -1..1. The base model learns four *views* of it (plain, negative,
rotated by 90 degrees, transposed). The fine-tunes learn the *target*: the plain picture with its 64 pixels shuffled
by one fixed permutation, which a model of 2 x 2 patches cannot read without being trained on it.

Of the 1797 pictures every fourth (index 3, 7, 11 ...) is held out: 449 pictures that no training step sees, in any
view, and 1348 to train on. The same writers appear on both sides, so the accuracies speak of new pictures, not
of new handwriting. Split and permutation are written down rather than drawn, because a random stream may change
between library versions and a shipped checkpoint must always be scored on pictures it has not seen.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgviz.packages import need

VIEWS = ("plain", "negative", "rotated", "transposed")
TARGET = "target"
HELD_OUT_EVERY = 4

# Drawn once: numpy.random.default_rng(0).permutation(64), numpy 2.4.
# fmt: off
PIXEL_PERMUTATION = (
    16, 36, 27, 8, 44, 23, 53, 4, 58, 50, 10, 2, 42, 34, 19, 47, 11, 57, 37, 20, 18, 61, 3, 1, 30, 24, 17, 46,
    21, 35, 28, 43, 0, 6, 22, 26, 51, 48, 62, 32, 25, 55, 9, 38, 59, 52, 40, 13, 12, 7, 45, 39, 63, 5, 49, 14,
    54, 29, 41, 60, 56, 33, 15, 31,
)
# fmt: on


_SHOWN = {
    "plain": lambda images: images,
    "negative": np.negative,
    "rotated": lambda images: np.rot90(images, axes=(1, 2)),
    "transposed": lambda images: images.transpose(0, 2, 1),
    TARGET: lambda images: images.reshape(len(images), 64)[:, PIXEL_PERMUTATION].reshape(images.shape),
}


@dataclass(frozen=True)
class Digits:
    """Pictures and their labels.

    Attributes
    ----------
    images : (n, 8, 8) float32 array
        Ink from -1 (none) to 1 (full).
    labels : (n,) int64 array
        Digits 0 to 9.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


@functools.cache
def load_digits_split() -> tuple[Digits, Digits]:
    """Return the training digits (1348) and the held-out digits (449), read once; nobody writes into them."""
    need("The demo's pictures", "sklearn")
    from sklearn.datasets import load_digits  # costs a second: only when asked

    digits = load_digits()
    images = (digits.images / 8.0 - 1.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    held_out = np.arange(labels.size) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return Digits(images[~held_out], labels[~held_out]), Digits(images[held_out], labels[held_out])


def apply_view(images: NDArray[np.float32], view: str) -> NDArray[np.float32]:
    """Return pictures as one of the `VIEWS`, or as the `TARGET`."""
    if view not in _SHOWN:
        raise ValueError(f"unknown view {view!r}; known: {', '.join(_SHOWN)}")
    return np.ascontiguousarray(_SHOWN[view](images))
