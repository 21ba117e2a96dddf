"""Forecasts a run from its journal. Writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from antflow._core.envelope import Envelope
from antflow._core.errors import JournalError
from antflow._core.items import content_of
from antflow._core.recall_counts import RecallCounts
from antflow._core.stage import Stage
from antflow.journal import schema
from antflow.journal.codec import Codec
from antflow.journal.codec_choice import codec_of
from antflow.journal.connections import Connection
from antflow.journal.databases import is_there, open_for_reading
from antflow.journal.file import told_as
from antflow.journal.inputs import Inputs
from antflow.journal.item_keys import ItemKey, content_key, item_key
from antflow.journal.journal import Journal
from antflow.journal.kept_errors import read_error
from antflow.journal.plan import Plan
from antflow.journal.recall import Found, Recall
from antflow.journal.stage_code import changed_stages

DURATIONS = (
    "SELECT name, sum(count), sum(total) FROM (SELECT stage, count(*) AS count, "
    "sum(seconds) AS total FROM results GROUP BY stage UNION ALL SELECT stage, count(*), "
    "sum(seconds) FROM outcomes GROUP BY stage) AS times JOIN stages USING (stage) GROUP BY name"
)


class Planner:
    """Looks up items in a journal, and counts what a run would do with them.

    Args:
        journal: The journal; its file need not exist.
        stages: The stages of the pipeline.

    Raises:
        JournalError: It cannot be read.
    """

    def __init__(self, journal: Journal, stages: Sequence[Stage]) -> None:
        self._journal = journal
        self._stages = stages
        self._codec: Codec = codec_of(journal.codec, journal._place, journal.trusted)
        self._inputs = Inputs(self._codec)
        self._connection: Connection | None = None
        self._settled: Counter[str] = Counter()
        self._goes_on: Counter[str] = Counter()
        self._again: Counter[str] = Counter()
        self._visits: Counter[int] = Counter()
        self._items = self._new = 0
        self._recall: Recall | None = None
        self._changed: Sequence[str] = ()
        if is_there(journal._place):
            self._connection = open_for_reading(journal._place)
            try:
                with told_as(journal.path):
                    if self._codec.name == "pickle":
                        self._connection.refuse_untrusted()
                    self._recall = self._recall_of(self._connection)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the journal."""
        if self._connection is not None:
            self._connection.close()

    def id_of(self, raw: object) -> str:
        """The id of an item that brings none."""
        return content_key(content_of(raw), self._codec)

    def look(self, envelopes: Sequence[Envelope]) -> None:
        """Find out what would become of items that are fed to the first stage."""
        self._items += len(envelopes)
        found: dict[ItemKey, Found] = {}
        if self._recall is not None:
            keys = [item_key(each.id) for each in envelopes if each.error is None]
            with told_as(self._journal.path):
                found = self._recall.find(keys)
        for each in envelopes:
            known = found.get(item_key(each.id)) if each.error is None else None
            if known is None or self._recall is None:
                self._new += 1
                self._visits[0] += 1
            elif self._is_changed(each, known):
                self._again["another input"] += 1
                self._visits[0] += 1
            else:
                with told_as(self._journal.path):
                    self._place(self._recall, each, known)

    def plan(self) -> Plan:
        """What a run of the items that were looked at would do."""
        settled, goes_on, again = map(dict, (self._settled, self._goes_on, self._again))
        seconds, changed = self._seconds(), tuple(self._changed)
        return Plan(self._items, settled, self._new, goes_on, again, seconds, changed)

    def _recall_of(self, connection: Connection) -> Recall | None:
        """What reads the items; ``None`` if the journal was killed as it was made."""
        if connection.is_new():
            return None
        (kept_as,) = connection.execute("SELECT codec FROM journal").fetchone()
        if kept_as != self._codec.name:
            told = f"its values are kept as {kept_as}; use codec={kept_as!r}"
            raise JournalError(f"journal {connection.path!r}: {told}")
        positions: dict[int, int] = {}
        recipes = schema.recipes_of((stage.name, stage.version) for stage in self._stages)
        for position, (recipe, *_) in enumerate(recipes):
            for (number,) in connection.execute(schema.STAGE_NUMBER, (recipe,)):
                positions[number] = position
        last = len(self._stages) - 1
        numbers = {position: number for number, position in positions.items()}
        in_order = [numbers.get(position) for position in range(last + 1)]
        self._changed = changed_stages(connection, in_order, self._stages)
        reads = connection.beside(positions, last)
        return Recall(reads, self._codec, positions, last, self._journal.retry_failed)

    def _is_changed(self, envelope: Envelope, found: Found) -> bool:
        if self._journal.on_input_change == "reuse":
            return False
        return found.row.input_hash != self._inputs.hash_of(envelope.input)

    def _place(self, recall: Recall, envelope: Envelope, found: Found) -> None:
        family = list(recall.family(envelope, found, 0, counts := RecallCounts()))
        if any(member.is_lost for member in family):
            self._again["what was made from it was not kept"] += 1
            self._visits[0] += 1
            return
        for row, known, _ in family:
            if known is None:
                continue  # it is made again from its parent
            if known.outcome is not None:
                self._settled[known.outcome] += 1
                continue
            position = known.envelope.position
            self._visits[position] += 1
            stage = self._stages[position].name
            why = self._why(recall, row.item)
            if why is None and counts.changed:
                why = "version"
            counts.changed = 0
            if why is None:
                self._goes_on[stage] += 1
            else:
                self._again[f"another version of {stage}" if why == "version" else why] += 1

    @staticmethod
    def _why(recall: Recall, item: int) -> str | None:
        """Why an item that has an outcome is run again; ``None`` if it has none."""
        query = "SELECT outcome, stage, error FROM outcomes WHERE item = ?"
        for outcome, stage, error in recall.connection.execute(query, (item,)):
            if stage not in recall.positions:
                return "version"
            if outcome == "failed":
                return f"failed: {read_error(error).failure.name}"
            return "more stages than before"
        return None

    def _seconds(self) -> float | None:
        """The time of the stage that takes longest, and one item's in the others."""
        means: dict[str, float] = {}
        if self._recall is not None:
            with told_as(self._journal.path):
                for name, count, total in self._recall.connection.execute(DURATIONS):
                    means[name] = total / int(count)
        visits, longest, alone = 0, 0.0, 0.0
        for position, stage in enumerate(self._stages):
            visits += self._visits[position]
            if not visits:
                continue
            if stage.name not in means:
                return None
            mean = means[stage.name]
            longest = max(longest, visits * mean / stage.workers)
            alone += mean
        return max(longest, alone)
