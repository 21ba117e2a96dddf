"""Every error of the library, and how they are related.

```text
AntFlowError
├── PipelineError (RuntimeError)          a pipeline described or used wrongly
│   ├── StageValidationError (ValueError) an option of a stage is not allowed
│   ├── TooManyFailures                   max_failures was reached; .results has everything
│   └── InternalError                     the library's own books do not balance: report it
├── TaskFailedError (RuntimeError)        a task raised CancelledError: .original_exception
└── ItemCancelled                         the outcome of an item that was stopped on its way
```

Each is also the builtin named in brackets, so that ``except ValueError`` does what it says.
"""

from antflow._core.errors import (
    AntFlowError,
    InternalError,
    ItemCancelled,
    PipelineError,
    StageValidationError,
    TaskFailedError,
    TooManyFailures,
)

__all__ = [
    "AntFlowError",
    "InternalError",
    "ItemCancelled",
    "PipelineError",
    "StageValidationError",
    "TaskFailedError",
    "TooManyFailures",
]
