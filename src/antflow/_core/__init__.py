"""The words: values and arithmetic of a pipeline.

No asyncio but in `cancellation`, no I/O and no clock of its own: time comes in as an argument, so
everything else here can be tested by calling it.
"""
