"""A journal: what runs have done, so that the next run goes on where one ended."""

from antflow.journal.connections import Durability
from antflow.journal.journal import Journal, OnInputChange, OnJournalError
from antflow.journal.plan import Plan

__all__ = ["Durability", "Journal", "OnInputChange", "OnJournalError", "Plan"]
