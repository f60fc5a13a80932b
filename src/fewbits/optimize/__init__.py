"""Post-training repairs without labels: one paper per file, each a function from a Simulation to a new one."""
