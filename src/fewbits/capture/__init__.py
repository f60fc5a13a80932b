"""From a user's module to the captured graph: torch.export and what has to be done around it."""
