"""The figures of arXiv 2605.20296 that may stand beside one's own: its population is not ours."""

PAPER_COMBINED = {
    "DG-Hard": {"all": 83.3, "Knowledge": 84.8, "Cognition": 82.1},
    "WiSE-FT": {"all": 76.4, "Cognition": 66.8},
}
"""`combined_population` of a method, over everything and by cohort, as the paper prints it."""

PAPER_COUNTS = {"damaged": 30, "improved": 55, "unchanged": 41}
"""How many of the paper's 126 cells fell into each part; it does not state its tolerance."""
