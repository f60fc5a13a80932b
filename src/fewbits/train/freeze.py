"""Batch norm whose statistics no longer move while the rest goes on learning.

Source: Krishnamoorthi 2018, arXiv:1806.08342, §3.2.4: late in training in few bits the moving statistics, which the
network is evaluated with, replace those of each batch.
"""

from fewbits.quant.simulation import Simulation


def freeze_batch_norm(simulation: Simulation) -> Simulation:
    """A copy whose batch norms use and keep their running statistics in training too; γ and β still learn."""
    frozen = simulation.to_repair()
    frozen.model.norms_frozen = True
    return frozen
