"""The files beside the weights as an output has them: copied, the config changed where the weights were."""

import json
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from dgviz.checkpoint.documents import open_own
from dgviz.checkpoint.tied import ties, untied
from dgviz.errors import CheckpointError
from dgviz.export.plan import ExportPlan
from dgviz.files import replacing

_FLOAT_NAMES = ("float64", "float32", "bfloat16", "float16")


def read_config(plan: ExportPlan) -> bytes | None:
    """Return the config of the output, None where it has none."""
    for name, side, source in plan.sidecars:
        if name == "config.json":
            with _open_sidecar(plan, side, source) as stream:
                return _config(stream.read(), plan)
    return None


def copy_sidecars(plan: ExportPlan) -> None:
    """Copy the other files of the plan, all but the config."""
    for name, side, source in plan.sidecars:
        if name != "config.json":
            target = plan.out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with _open_sidecar(plan, side, source) as stream, replacing(target) as fresh, fresh.open("wb") as out:
                shutil.copyfileobj(stream, out)


def _open_sidecar(plan: ExportPlan, side: str, source: Path) -> BinaryIO:
    """Open a file beside an input, which may have become a link to elsewhere since it was planned."""
    try:
        return open_own(source, {"base": plan.pair.base, "tuned": plan.pair.tuned}[side].path)
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read any more: {error.strerror or error}") from error


def _without_quantisation(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "quantization_config"}


def _config(data: bytes, plan: ExportPlan) -> bytes:
    """Return the config, its dtype entries changed where the output's dtype was: loaders cast to what it says.

    Quantisation is dropped: what is written is dense. The standard parser, because configs in use hold ``Infinity``.
    """
    dtype = plan.repair.dtype
    apart = plan.pair.tuned.is_adapter and ties(plan.pair.tuned.config) is False
    if dtype == "auto" and b"quantization_config" not in data and not apart:
        return data
    config = json.loads(data, object_hook=_without_quantisation)
    config = untied(config) if apart else config

    def with_dtype(value: Any) -> Any:
        """Replace every dtype entry, also those of sub-models."""
        if isinstance(value, dict):
            return {
                key: dtype if key in ("dtype", "torch_dtype") and item in _FLOAT_NAMES else with_dtype(item)
                for key, item in value.items()
            }
        return value

    if dtype != "auto":
        config = with_dtype(config)
        if "torch_dtype" not in config:
            config["dtype"] = dtype
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
