"""Defenses that act on the network before or after its training."""
