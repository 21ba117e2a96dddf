"""The machine: channels, workers and the run that owns them. Imports ``_core`` only."""
