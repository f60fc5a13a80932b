"""What values occur, and the grid that suits them: observers, range rules, and the scale rule."""
