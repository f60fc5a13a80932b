"""Learning in few bits: one paper per file, the registry of methods, and the loop."""
