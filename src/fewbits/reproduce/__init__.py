"""Published rows, rerun by one command each."""
