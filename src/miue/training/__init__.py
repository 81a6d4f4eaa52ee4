"""Batches, views, bounded steps and the one training loop."""
