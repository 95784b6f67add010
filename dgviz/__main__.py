"""``python -m dgviz``."""

import sys

from dgviz.cli import main

sys.exit(main())
