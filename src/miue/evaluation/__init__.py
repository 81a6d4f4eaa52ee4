"""What a protection is worth: victims, controls and a verdict."""
