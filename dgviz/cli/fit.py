"""``fit``: a plan whose scales keep base's and tuned's own distributions, on texts that they write themselves."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from dgviz.checkpoint import open_pair
from dgviz.cli.options import print_columns, print_result, safe_pair, warn
from dgviz.cli.progress import Progress
from dgviz.command import Command
from dgviz.packages import need


def run(options: argparse.Namespace) -> int:
    """Fit the scales, strength by strength, and write the plan that keeps what is asked for."""
    need("fit", "transformers")
    from dgviz.demo.evaluation import quiet_transformers
    from dgviz.fit import FitSettings, iter_fit
    from dgviz.fit.path import STRENGTHS

    pair, out = safe_pair(options, open_pair(options.base, options.tuned)), Path(options.out).expanduser()
    texts = {"samples": options.samples, "length": options.length, "mask": options.mask_token}
    settings = FitSettings(options.split, options.seed, steps=options.steps, **texts)
    points = iter_fit(pair, out, settings, options.keep, options.device)
    bar = Progress("fit", 1 + len(STRENGTHS), unit="strength")
    with quiet_transformers(), closing(points), bar as progress:
        for point in points:
            progress.tell(1, f"{point.target_kept:.1f} % of the target kept")
    written = orjson.loads(out.read_bytes())
    fit, plan = written["fit"], written["plan"]
    result = {"file": str(out), **fit["chosen"], "samples_sha256": fit["sha256"], "plan": plan}
    result["path"] = [{name: row[name] for name in ("strength", "target_kept")} for row in fit["path"]]
    print_result(options, result, lambda: _print(options, result))
    return 0


def _print(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print the path, what was chosen, and how to write it."""
    rows = [(f"{row['strength']:g}", f"{row['target_kept']:.1f}") for row in result["path"]]
    print_columns(("strength", "target kept, %"), rows)
    if result["target_kept"] - result["keep"] > 1:
        warn([f"the last strength still keeps {result['target_kept']:.1f} %: the plan is that one's"])
    print(
        f"\nkeeps {result['target_kept']:.1f} % of the target and heals {result['healed']:.1f} %, estimated from "
        f"texts that both sides wrote (SHA-256 {result['samples_sha256'][:12]}...); experimental: evaluate the "
        f"result\nwrote {result['file']}; to use it:\n"
        f"{Command('repair', base=options.base, tuned=options.tuned, out='OUT', plan=result['file'])}"
    )
