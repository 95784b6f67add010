"""The built-in pair: a small vision transformer on scikit-learn's digits and two fine-tunes of it.

The checkpoints and their scores come with the package; `write_demo` copies them out, `train_demo` makes them anew,
`score_demo` scores the packaged ones anew, `write_figure4_pair` makes one weight of the size of the paper's Figure 4.
Importing this loads neither torch nor transformers.
"""

from dgviz.demo.evaluation import evaluate
from dgviz.demo.figure4 import write_figure4_pair
from dgviz.demo.packaged import demo_files, demo_paths, demo_scores, read_frontier, read_scores, write_demo
from dgviz.demo.train import DemoEvent, score_demo, train_demo

__all__ = [
    "DemoEvent",
    "demo_files",
    "demo_paths",
    "demo_scores",
    "evaluate",
    "read_frontier",
    "read_scores",
    "score_demo",
    "train_demo",
    "write_demo",
    "write_figure4_pair",
]
