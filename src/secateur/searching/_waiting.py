"""What engines over a ledger share: points wait in it under their numbers."""

from __future__ import annotations

from secateur.searching._ledger import Ledger, Row
from secateur.searching._serving import taken_over
from secateur.searching._space import Question


class Waiting:
    """A ledger, taken over from an earlier process of the same search."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._numbers = taken_over(ledger)

    def begin(self, point: Question) -> None:
        """Let it wait."""
        if point not in self._numbers:
            self._numbers[point] = self._ledger.add(point)

    def _row(self, point: Question, rows: list[Row] | None = None) -> Row:
        """A point that was begun, as it is now."""
        return (self._ledger.rows() if rows is None else rows)[self._numbers[point]]

    def _over(self, kind: object) -> None:
        """Tell all workers that the search is over, unless an exception of some kind ends it."""
        if kind is None:
            self._ledger.end()
