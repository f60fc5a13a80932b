"""Recipes and presets, plans, calibration, fake quantizers and the Simulation."""
