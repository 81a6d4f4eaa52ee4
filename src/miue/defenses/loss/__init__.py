"""Defenses that are the victim's loss."""
