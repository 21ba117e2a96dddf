"""Every error of the library, and how they are related.

```text
AntFlowError
├── PipelineError (RuntimeError)          a pipeline described or used wrongly
│   ├── StageValidationError (ValueError) an option of a stage is not allowed
│   ├── DuplicateItemError (ValueError)   a duplicate id, with duplicates="error"
│   ├── WouldDeadlockError                a task fed more back than there is room for
│   ├── TooManyFailures                   stopped by max_failures or stop_on: .results
│   ├── JournalError                      a journal cannot be used as asked
│   │   ├── JournalOpenError (OSError)    it is something else, or cannot be opened
│   │   ├── JournalInUseError             another run writes to it
│   │   ├── JournalVersionError (ValueError) its format is a newer one
│   │   ├── JournalCorruptError (ValueError) it is damaged
│   │   ├── JournalWriteError (OSError)   it could not be written
│   │   ├── JournalForkError              a forked process used that of its parent
│   │   ├── JournalInputMismatch (ValueError) it was begun with other items
│   │   ├── JournalKeyError (ValueError)  an id cannot be the key of an item
│   │   ├── NotSerialisable (TypeError)   a value cannot be written to it
│   │   │   └── NotRoundTrippable         a value does not come back the same
│   │   └── NotRestorable (ValueError)    a value cannot be read back
│   └── InternalError                     the library's own books do not balance: report it
├── TaskFailedError (RuntimeError)        a task raised CancelledError: .original_exception
│   └── WorkerLostError                   an item's task ended its process three times
├── ItemCancelled                         the outcome of an item that was stopped on its way
├── HistoryNotKept (LookupError)          a tracker did not keep what it is asked for
├── ExecutorShutdownError (RuntimeError)  work for an executor that was shut down
├── StandInError                          stands for an exception that cannot be copied or unpickled
├── RetryAfter (RuntimeError)             raised by a task: hold its stage and its limits
└── Drop                                  raised or returned by a task: the item ends here,
successfully ```

Each is also a subclass of the builtin in brackets, so ``except ValueError`` works as expected.
"""

from antflow._core.error_copies import StandInError
from antflow._core.errors import (
    AntFlowError,
    Drop,
    ExecutorShutdownError,
    HistoryNotKept,
    ItemCancelled,
    JournalCorruptError,
    JournalError,
    JournalForkError,
    JournalInputMismatch,
    JournalInUseError,
    JournalKeyError,
    JournalOpenError,
    JournalVersionError,
    JournalWriteError,
    NotRestorable,
    NotRoundTrippable,
    NotSerialisable,
    PipelineError,
    RetryAfter,
    StageValidationError,
    TaskFailedError,
    WorkerLostError,
    WouldDeadlockError,
)
from antflow._core.run_errors import DuplicateItemError, InternalError, TooManyFailures

__all__ = [
    "AntFlowError",
    "Drop",
    "DuplicateItemError",
    "ExecutorShutdownError",
    "HistoryNotKept",
    "InternalError",
    "ItemCancelled",
    "JournalCorruptError",
    "JournalError",
    "JournalForkError",
    "JournalInUseError",
    "JournalInputMismatch",
    "JournalKeyError",
    "JournalOpenError",
    "JournalVersionError",
    "JournalWriteError",
    "NotRestorable",
    "NotRoundTrippable",
    "NotSerialisable",
    "PipelineError",
    "RetryAfter",
    "StageValidationError",
    "StandInError",
    "TaskFailedError",
    "TooManyFailures",
    "WorkerLostError",
    "WouldDeadlockError",
]
