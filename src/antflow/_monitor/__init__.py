"""The watch, both halves: tracker (events) and dashboards (polling). Imports ``_core`` only."""
