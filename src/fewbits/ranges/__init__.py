"""Calibration statistics and what is made of them: observers, range rules, the scale rule, k-means."""
