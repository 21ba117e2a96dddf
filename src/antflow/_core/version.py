"""The version, in one place: the build and `antflow.__version__` read it from here."""

__version__ = "0.11.0"
