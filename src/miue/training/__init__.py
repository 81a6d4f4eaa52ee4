"""Batches, views, bounded steps and the only training loop."""
