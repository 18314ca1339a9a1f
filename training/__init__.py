"""Training: data, the two stages, calibration and evaluation."""
