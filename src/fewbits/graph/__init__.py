"""The captured graph as plain data, the model that runs it, and the table of known ATen operators."""
