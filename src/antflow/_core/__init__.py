"""The words: values and arithmetic of a pipeline.

No asyncio except in `cancellation`, no I/O and no clock: time comes in as an argument, so
everything else here can be tested by calling it.
"""
