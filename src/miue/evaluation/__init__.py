"""The worth of a protection: victims, controls and a verdict."""
