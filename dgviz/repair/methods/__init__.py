"""Repair methods: what can be made of an update after training, one file each, behind one registry.

Notation: ``W0`` base, ``W1`` tuned, ``D = W1 - W0``, ``D*`` what DG-Hard keeps of D under the plan's rule and
shrinker, ``W0 + D'`` the method's result. Controls are no repairs: they show what a repair must be better than. A new
method is a file with a class, its line below and its test.
"""

import re

from dgviz.errors import MethodError
from dgviz.registry import Registry
from dgviz.repair.methods.base_damping import BaseDamping
from dgviz.repair.methods.breadcrumbs import Breadcrumbs
from dgviz.repair.methods.complement import Complement
from dgviz.repair.methods.dare import Dare
from dgviz.repair.methods.della import Della
from dgviz.repair.methods.dg_hard import DGHard
from dgviz.repair.methods.fapm import Fapm
from dgviz.repair.methods.flat import FlatFro, FlatNuclear
from dgviz.repair.methods.lines import LiNeS
from dgviz.repair.methods.magnitude import Magnitude
from dgviz.repair.methods.method import Method, Strength
from dgviz.repair.methods.norm_capped import NormCapped
from dgviz.repair.methods.norm_matched import NormMatched, NormMatchedGlobal
from dgviz.repair.methods.rank_r import RankTruncation
from dgviz.repair.methods.same_rank import BottomK, RandomK
from dgviz.repair.methods.split import Split
from dgviz.repair.methods.ties import Ties, TiesPerTensor
from dgviz.repair.methods.wise_ft import WiseFT

__all__ = ["METHODS", "Method", "Strength", "find_method", "method_words"]

_METHODS = (
    DGHard(),
    RankTruncation(),
    FlatFro(),
    FlatNuclear(),
    BaseDamping(),
    WiseFT(),
    LiNeS(),
    NormCapped(),
    Magnitude(),
    Ties(),
    TiesPerTensor(),
    Breadcrumbs(),
    Dare(),
    Della(),
    Fapm(),
    NormMatched(),
    NormMatchedGlobal(),
    Split(),
    Complement(),
    RandomK(),
    BottomK(),
)

METHODS: Registry[Method] = Registry("repair method", MethodError, *_METHODS)
"""Every method by name, in the order in which pages and tables show them."""


def find_method(name: str) -> Method:
    """Return the method of that name.

    Parameters
    ----------
    name : str
        A key of `METHODS`.

    Raises
    ------
    MethodError
        If there is none.

    Examples
    --------
    >>> find_method("wise_ft").formula
    '(1 - alpha) W0 + alpha W1'
    """
    return METHODS.find(name)


def method_words(label: str) -> str:
    """Return a repair's label with the method that it begins with called by its title.

    Parameters
    ----------
    label : str
        Such as ``wise_ft_0.25`` or ``dg_hard:scale=2``; one that begins with no method stays as it is.

    Examples
    --------
    >>> method_words("wise_ft_0.25")
    'WiSE-FT 0.25'
    """
    names = [name for name in METHODS if re.fullmatch(rf"{name}([_:].*)?", label)]
    if not names:
        return label
    name = max(names, key=len)
    return " ".join(filter(None, (METHODS[name].title, label.removeprefix(name).strip("_:"))))
