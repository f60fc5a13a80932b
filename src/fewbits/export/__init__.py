"""Files for others, written after an engine gave the program's codes on them."""
