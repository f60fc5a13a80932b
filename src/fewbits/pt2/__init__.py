"""Reading .pt2 archives: the graph that they hold, with nothing in them executed."""
