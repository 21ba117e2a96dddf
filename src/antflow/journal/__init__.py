"""A journal: what runs have done, so that the next run goes on where one ended."""

from antflow.journal.connections import Durability
from antflow.journal.journal import (
    Journal,
    OnInputChange,
    OnJournalError,
    OnUnserialisable,
    Redact,
)
from antflow.journal.omitted import Omitted
from antflow.journal.plan import Plan

__all__ = [
    "Durability",
    "Journal",
    "Omitted",
    "OnInputChange",
    "OnJournalError",
    "OnUnserialisable",
    "Plan",
    "Redact",
]
