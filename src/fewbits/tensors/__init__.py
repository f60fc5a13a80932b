"""Functions of one tensor, for exercises and experiments: what the toolkit runs, without a network around it."""
