"""Find, open, read, fingerprint and pair checkpoints; importing this does not import torch."""

from dgviz.checkpoint.fingerprint import content_hash, is_hashed, known_hashes
from dgviz.checkpoint.layout import MatrixLayout, matrix_layout
from dgviz.checkpoint.local import open_checkpoint
from dgviz.checkpoint.names import match_names
from dgviz.checkpoint.pair import inspect_pair, open_pair, pair_checkpoints
from dgviz.checkpoint.preflight import Preflight, PreflightRow, read_preflight
from dgviz.checkpoint.read import read_bytes, read_tensor
from dgviz.checkpoint.types import Checkpoint, CheckpointPair, Notice, PairedTensor, TensorInfo
from dgviz.files import cache_dir

__all__ = [
    "Checkpoint",
    "CheckpointPair",
    "MatrixLayout",
    "Notice",
    "PairedTensor",
    "Preflight",
    "PreflightRow",
    "TensorInfo",
    "cache_dir",
    "content_hash",
    "inspect_pair",
    "is_hashed",
    "known_hashes",
    "match_names",
    "matrix_layout",
    "open_checkpoint",
    "open_pair",
    "pair_checkpoints",
    "read_bytes",
    "read_preflight",
    "read_tensor",
]
