"""A picture as a value: an SVG document that a notebook shows and a file keeps, as SVG or as PNG."""

from functools import cache
from pathlib import Path

from dgviz.errors import ExportError
from dgviz.files import save_by_ending

PNG_SCALE = 2  # pixels for one of the SVG
_TEXT = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20">'
    '<text x="2" y="15" font-family="Helvetica, Arial, sans-serif" font-size="14"{}>tau</text></svg>'
)


class Picture(str):
    """An SVG document.

    Examples
    --------
    >>> Picture('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>').png()[1:4]
    b'PNG'
    """

    def _repr_svg_(self) -> str:
        """Return it for a notebook."""
        return str(self)

    def png(self) -> bytes:
        """Return it as PNG, two pixels for one.

        Raises
        ------
        ExportError
            If there is no font on this machine to write its words with.
        """
        if "<text" in self and not _has_fonts():
            raise ExportError(
                "there is no font on this machine, so that a PNG would lack all words: install one, or write .svg"
            )
        return _draw(str(self))

    def save(self, file: str | Path) -> Path:
        """Write it to a file in one step.

        Parameters
        ----------
        file : str or Path
            ``.svg`` or ``.png``, by its ending.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ExportError
            If the ending is another one, or the file cannot be written.
        """
        return save_by_ending(file, {".svg": self.encode, ".png": self.png})


def _draw(svg: str) -> bytes:
    """Return an SVG document as PNG."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=PNG_SCALE, sans_serif_family="DejaVu Sans"))


@cache
def _has_fonts() -> bool:
    """Return whether words leave any ink."""
    return _draw(_TEXT.format("")) != _draw(_TEXT.format(' opacity="0"'))
