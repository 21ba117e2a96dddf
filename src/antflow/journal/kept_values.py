"""Decides what is kept of each value: the value, or a note that it was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from antflow._core.errors import JournalError, NotRoundTrippable, NotSerialisable
from antflow._core.foreign import is_a, type_name
from antflow._core.items import content_of
from antflow._core.log import warn
from antflow._core.recall_counts import RecallCounts
from antflow._core.text import clean, error_type_name, safe_repr, safe_str
from antflow.journal.cells import Cell, cell_of, omitted_cell
from antflow.journal.codec import FINGERPRINT_BYTES, Codec, checked
from antflow.journal.inputs import Inputs
from antflow.journal.journal import Journal
from antflow.journal.kept_errors import error_text
from antflow.journal.omitted import Omitted

What = Literal["input", "result", "checkpoint", "error"]

AGAIN = "an item that has not ended by the end of the run is run again from there"
MADE_AGAIN = "the item it was made from may be run again, with everything made from it"
GONE = "in later runs, antflow.journal.Omitted stands for it"
NO_CHECKPOINT = "later runs begin without it"


@dataclass(frozen=True, slots=True)
class _Left:
    """Why a value is left out.

    Attributes:
        omitted: What stands for it.
        kept: The bytes of what ``redact`` made of it.
        told: Why, in words.
    """

    omitted: Omitted
    kept: bytes | None
    told: str


class KeptValues:
    """Makes cells of values, as the options of a journal say.

    Args:
        codec: Makes bytes of them.
        inputs: Makes bytes of items as they were fed.
        journal: The options.
        stages: Names of the stages.

    Attributes:
        counts: Where results are counted that are left out.
    """

    def __init__(
        self, codec: Codec, inputs: Inputs, journal: Journal, stages: Sequence[str]
    ) -> None:
        self._codec = codec
        self._inputs = inputs
        self._journal = journal
        self._stages = stages
        self._checked = [checked(codec, name) for name in stages]
        self._last = len(stages) - 1
        self._told: set[tuple[int, str, str]] = set()
        self.counts: RecallCounts = RecallCounts()

    def result(self, stage: int, value: Any, *, is_made: bool = False) -> Cell:
        """The cell for a stage's result.

        Args:
            stage: The stage's index.
            value: The result.
            is_made: Whether it is an item that was made from another. Then the item itself goes on
                from it, so one of any size is kept, unless nothing comes after the stage.

        Raises:
            NotSerialisable: It cannot be encoded, and that is an error.
            JournalError: ``redact`` failed.
        """
        is_last = stage == self._last
        follows = GONE if is_last else MADE_AGAIN if is_made else AGAIN
        if type(value) is Omitted:  # of an earlier run
            return self._omitted_again(value)
        encoded = self._encoded(value, "result", stage)
        most = None if is_made and not is_last else self._journal.max_result
        if isinstance(encoded, bytes):
            if most is None or len(encoded) <= most:
                return cell_of(encoded)
            size, digest = len(encoded), blake2b(encoded, digest_size=FINGERPRINT_BYTES)
            told = f"too large ({size:,} bytes, max_result={most:,})"
            encoded = _Left(Omitted("too large", size, digest.hexdigest()), None, told)
        self.counts.omitted += is_last
        self._tell(stage, "result", encoded, follows)
        return omitted_cell(encoded.omitted, encoded.kept)

    def checkpoint(self, stage: int, value: Any) -> Cell:
        """The cell for a checkpoint, kept for later tries.

        Raises:
            NotSerialisable: It cannot be encoded.
            JournalError: ``redact`` failed.
        """
        encoded = self._encoded(value, "checkpoint", stage, omits=False)
        if isinstance(encoded, bytes):
            return cell_of(encoded)
        self._tell(stage, "checkpoint", encoded, NO_CHECKPOINT)
        return omitted_cell(encoded.omitted, encoded.kept)

    def given(self, stage: int, item: Any) -> tuple[Cell | None, bytes]:
        """An item as it was fed, and its hash. It need not be kept: it is fed again.

        Raises:
            JournalError: ``redact`` failed.
        """
        content = content_of(item)
        redacted = self._redacted(content, "input", stage)
        data, found = self._inputs.kept(item)
        if redacted is not content:
            kept = self._encoded_plainly(redacted, "input", stage)
            if kept != data:
                return omitted_cell(Omitted("redacted"), kept), found
        return None if data is None else cell_of(data), found

    def error(self, stage: int, error: Exception) -> str:
        """An error, as JSON.

        Raises:
            JournalError: ``redact`` failed.
        """
        return error_text(error, lambda text: self._redacted_text(text, stage))

    def run_error(self, error: BaseException) -> str:
        """The error that ended a run; if ``redact`` fails, its type alone."""
        try:
            return self._redacted_text(safe_str(error), -1)
        except JournalError:
            return error_type_name(error)

    # Inside

    def _encoded(self, value: Any, what: What, stage: int, *, omits: bool = True) -> bytes | _Left:
        """The bytes of a value; or why it is left out."""
        redacted = self._redacted(value, what, stage)
        data: bytes | None = None
        try:
            data = self._checked[stage].encode(value)
        except NotRoundTrippable:
            raise  # that is a fault of the codec, and not every value is compared
        except NotSerialisable as error:
            if redacted is value and not (omits and self._journal.on_unserialisable == "omit"):
                raise
            if redacted is value:
                return _Left(Omitted("not serialisable"), None, clean(str(error)))
        if redacted is not value:
            kept = self._encoded_plainly(redacted, what, stage)
            if data is None or kept != data:
                most = self._journal.max_result
                is_short = most is None or len(kept) <= most
                return _Left(Omitted("redacted"), kept if is_short else None, "redacted")
        assert data is not None
        return data

    def _encoded_plainly(self, redacted: Any, what: What, stage: int) -> bytes:
        try:
            return self._codec.encode(redacted)
        except Exception as error:
            told = f"what redact returned for {self._about(what, stage)} cannot be kept"
            raise JournalError(f"{told}: {clean(safe_str(error))}") from error

    def _redacted(self, value: Any, what: What, stage: int) -> Any:
        if self._journal.redact is None:
            return value
        try:
            return self._journal.redact(value, what, "" if stage < 0 else self._stages[stage])
        except Exception as error:
            told = f"redact failed with {error_type_name(error)}, so nothing of it is kept"
            raise JournalError(f"{self._about(what, stage)}: {told}") from error

    def _redacted_text(self, text: str, stage: int) -> str:
        redacted = self._redacted(text, "error", stage)
        if not is_a(redacted, str):
            told = f"redact must return a text, and returned a {type_name(redacted)}"
            raise JournalError(f"{self._about('error', stage)}: {told}")
        return str.__str__(redacted)

    def _omitted_again(self, value: Omitted) -> Cell:
        kept = None
        if value.why == "redacted" and value.kept is not None:
            kept = self._codec.encode(value.kept)
        return omitted_cell(value, kept)

    def _about(self, what: What, stage: int) -> str:
        if stage < 0:
            return "the error of the run"
        return f"{what} of stage {clean(safe_repr(self._stages[stage]))}"

    def _tell(self, stage: int, what: What, left: _Left, follows: str) -> None:
        """Warn once of each stage."""
        if (key := (stage, what, left.omitted.why)) not in self._told:
            self._told.add(key)
            warn(
                "%s is not kept in the journal: %s; %s",
                self._about(what, stage),
                left.told,
                follows,
            )
