"""Frozen batch norm statistics during the rest of training.

Source: Krishnamoorthi 2018, arXiv:1806.08342, §3.2.4: late in training in few bits the moving statistics, which the
network is evaluated with, replace those of each batch.
"""

from fewbits.quant.simulation import Simulation


def freeze_batch_norm(simulation: Simulation) -> Simulation:
    """A copy whose batch norms use their running statistics in training too, and no longer update them; γ and β are
    still trained."""
    frozen = simulation.to_repair()
    frozen.model.norms_frozen = True
    return frozen
