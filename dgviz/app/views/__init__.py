"""The pages, one module each, drawn by its `draw`."""
