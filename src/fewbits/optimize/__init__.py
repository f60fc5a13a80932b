"""Repairs without labels: one paper a file, each a function from a Simulation to a new one."""
