"""The watch over the event loop: whether something blocks it, and what."""
