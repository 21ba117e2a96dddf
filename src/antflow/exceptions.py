"""Every error of the library, and how they are related."""

from antflow._core import errors
from antflow._core.errors import (
    AntFlowError,
    InternalError,
    ItemCancelled,
    PipelineError,
    StageValidationError,
    TaskFailedError,
    TooManyFailures,
)

__doc__ = errors.__doc__
__all__ = [
    "AntFlowError",
    "InternalError",
    "ItemCancelled",
    "PipelineError",
    "StageValidationError",
    "TaskFailedError",
    "TooManyFailures",
]
