"""The words: values and arithmetic of a pipeline.

No asyncio, no I/O and no clock of its own: time comes in as an argument, so everything here can be
tested by calling it.
"""
