"""A whole model, or several: spectra side by side, the map, noise, rules and methods compared."""
