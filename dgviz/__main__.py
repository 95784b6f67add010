"""``python -m dgviz``."""

import sys

from dgviz.cli import run_process

sys.exit(run_process())
