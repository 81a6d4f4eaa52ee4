"""Defenses that change every training batch."""
