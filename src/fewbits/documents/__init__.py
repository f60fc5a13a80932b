"""Pages of docs/ that are made from the code, so that they stay true; a test compares each with its file."""
