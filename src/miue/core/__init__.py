"""The base of the package: data types, methods and their spelling, files, the device, the run."""
