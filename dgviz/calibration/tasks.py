"""What the small models learn and are asked: pictures to classify, text to continue, text with gaps to fill.

Every task has two sides: what base knows, and the target that fine-tunes learn. Scores are kept example by example,
so that whoever compares two models can resample the examples.
"""

import functools
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dgviz.calibration.corpus import CIPHER, CODE, PROSE, Text, read_text
from dgviz.calibration.recipes import FAMILIES, LANGUAGE, PICTURES
from dgviz.demo.data import TARGET, VIEWS, apply_view, load_digits_split

if TYPE_CHECKING:
    import torch

OWN, SIDES = "base", ("base", "target")
MASK = 256
"""The token of a gap; the others are bytes."""


class Task(Protocol):
    """What one kind of model is trained and scored on."""

    data: str
    """What it is made of, with a hash where that depends on the machine."""
    examples_per_step: int

    def batch(self, side: str, size: int, draws: "torch.Generator") -> dict[str, "torch.Tensor"]:
        """Return random training examples as the model takes them, labels included."""

    def score(self, model: Any, side: str) -> NDArray[np.float64]:
        """Return the share of right answers on every held-out example."""


class Pictures:
    """The demo's digits: base knows four views, the target shuffles the pixels."""

    data = "sklearn.datasets.load_digits"
    examples_per_step = 32

    def batch(self, side: str, size: int, draws: "torch.Generator") -> dict[str, "torch.Tensor"]:
        """Return pictures, each in one of the views; those for base with noise on every pixel."""
        import torch

        labels, pixels = self._train(side)
        picture = torch.randint(len(labels), (size,), generator=draws)
        shown = pixels[torch.randint(len(pixels), (size,), generator=draws), picture]
        if side == OWN:
            shown = shown + 0.3 * torch.randn(shown.shape, generator=draws)
        return {"pixel_values": shown, "labels": labels[picture]}

    @functools.cache  # noqa: B019 - one object per task
    def _train(self, side: str) -> tuple["torch.Tensor", "torch.Tensor"]:
        import torch

        train, _ = load_digits_split()
        views = VIEWS if side == OWN else (TARGET,)
        pixels = torch.stack([torch.from_numpy(apply_view(train.images, view)) for view in views])
        return torch.from_numpy(train.labels), pixels.unsqueeze(2)

    def score(self, model: Any, side: str) -> NDArray[np.float64]:
        """Return which held-out pictures are classified rightly, the mean over the views."""
        import torch

        _, held_out = load_digits_split()
        right = []
        for view in VIEWS if side == OWN else (TARGET,):
            pixels = torch.from_numpy(apply_view(held_out.images, view)).unsqueeze(1)
            right.append(model(pixel_values=pixels).logits.argmax(-1).numpy() == held_out.labels)
        return np.mean(right, axis=0)


class Continuation:
    """The next byte of a text: base knows code, the target is prose."""

    length, examples, examples_per_step = 96, 96, 12
    target = PROSE

    def _text(self, side: str) -> Text:
        return read_text(CODE if side == OWN else self.target)

    @property
    def data(self) -> str:
        """Both texts by their hashes."""
        return ", ".join(f"{kind} sha256 {read_text(kind).sha256[:16]}" for kind in (CODE, self.target))

    def batch(self, side: str, size: int, draws: "torch.Generator") -> dict[str, "torch.Tensor"]:
        """Return pieces of text."""
        pieces = self._pieces(side, size, draws)
        return {"input_ids": pieces, "labels": pieces}

    def _pieces(self, side: str, size: int, draws: "torch.Generator") -> "torch.Tensor":
        import torch

        text = self._text(side).train
        starts = torch.randint(text.size - self.length, (size,), generator=draws).numpy()
        return torch.from_numpy(text[starts[:, None] + np.arange(self.length)].astype(np.int64))

    def held_out(self, side: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return held-out pieces as they are shown, the right answer at every place, and where one is asked for."""
        pieces = self._text(side).sequences(self.examples, self.length)
        asked = np.ones(pieces.shape, dtype=bool)
        asked[:, -1] = False
        return pieces, np.roll(pieces, -1, axis=1), asked

    def score(self, model: Any, side: str) -> NDArray[np.float64]:
        """Return the share of right answers in every held-out piece."""
        import torch

        shown, answers, asked = self.held_out(side)
        found = model(input_ids=torch.from_numpy(shown)).logits.argmax(-1).numpy()
        return ((found == answers) & asked).sum(axis=1) / asked.sum(axis=1)


class Gaps(Continuation):
    """Bytes that were masked: base knows code, the target is prose in cipher.

    Plain prose teaches a small encoder code as well: it would forget nothing.
    """

    length, examples, examples_per_step = 64, 192, 16
    target = CIPHER
    share = 0.15

    def batch(self, side: str, size: int, draws: "torch.Generator") -> dict[str, "torch.Tensor"]:
        """Return pieces of text with gaps; only gaps are asked for."""
        import torch

        pieces = self._pieces(side, size, draws)
        gaps = torch.rand(pieces.shape, generator=draws) < self.share
        return {"input_ids": pieces.masked_fill(gaps, MASK), "labels": pieces.masked_fill(~gaps, -100)}

    def held_out(self, side: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return held-out pieces with gaps at fixed, scattered places."""
        pieces, _, _ = super().held_out(side)
        gaps = np.zeros(pieces.shape, dtype=bool)
        for row in range(self.examples):
            gaps[row, (np.arange(4, self.length, 7) + 3 * row) % self.length] = True
        return np.where(gaps, MASK, pieces), pieces, gaps


_TASKS: dict[str, Task] = {PICTURES: Pictures(), LANGUAGE: Continuation()}
_GAPS = Gaps()


def find_task(architecture: str) -> Task:
    """Return what models of an architecture are trained on."""
    return _TASKS.get(FAMILIES[architecture], _GAPS)
