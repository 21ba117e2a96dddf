"""Objects that a debugger or a log shows in one short line."""

from __future__ import annotations

from antflow._core.foreign import asked, type_name
from antflow._core.text import clean


class Brief:
    """Its `repr` is ``<Name`` + `_said` + ``>``, and never raises, even if it is half made."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type_name(self)}{clean(asked(self._said, instead=''))}>"

    def _said(self) -> str:
        """The rest after the name: ``: 3 workers, idle``."""
        return ""
