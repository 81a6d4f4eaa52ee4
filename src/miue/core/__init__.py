"""What everything stands on: nouns, methods and their spelling, files, the device, the run."""
