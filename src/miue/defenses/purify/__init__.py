"""Defenses that clean the training pictures once."""
