"""What we decide: recipes, plans, and the Simulation that carries a plan out in float."""
