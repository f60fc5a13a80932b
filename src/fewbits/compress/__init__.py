"""Fewer bytes: prune, share weights, code what is left, and decode it again."""
