"""Published rows, rerun: one command each."""
