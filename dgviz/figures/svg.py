"""Words, lines and boxes of SVG documents, as all pictures for print have them."""

from html import escape

INK, SOFT = "#1a1a1a", "#555555"


def text(
    x: float, y: float, words: str, size: int = 13, colour: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    """Return words at a place."""
    weight = ' font-weight="700"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>'
        f"{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, radius: int, fill: str) -> str:
    """Return a rounded box behind a line of words."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="16" rx="{radius}" fill="{fill}"/>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dash: str = "") -> str:
    """Return a line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{dashes}/>'


def upright(x: float, y: float, words: str) -> str:
    """Return words that run upwards."""
    place = f"translate({x:.0f} {y:.0f}) rotate(-90)"
    return f'<text transform="{place}" font-size="11" fill="{SOFT}" text-anchor="middle">{escape(words)}</text>'


def wrap(text: str, width: int) -> list[str]:
    """Return a text in lines."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
