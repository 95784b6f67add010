"""A package that only a worker imports, as torch is."""


class ForeignError(Exception):
    pass
