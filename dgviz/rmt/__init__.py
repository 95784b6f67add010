"""What random-matrix theory says of a spectrum: law, thresholds, shrinkers, noise of rounding; numpy only."""
