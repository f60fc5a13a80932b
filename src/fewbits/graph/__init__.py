"""What the model is: captured into a graph of ATen operators, with the table of those we know, and folding."""
