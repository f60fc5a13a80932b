"""From a Simulation to a Program: one rule per operator."""
