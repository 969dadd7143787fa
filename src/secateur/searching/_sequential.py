"""Searches that are written down as one story: points are yielded, and their values come back."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from secateur.searching import WAIT, Point, Question, Wait
from secateur.searching._space import asked

Answer = tuple[Point, float]  # the point as it was repaired, and its value
Story = Generator[Sequence[Question], list[Answer], None]


class Sequential:
    """A story behind the contract: it goes on when all points that it yielded were told."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._waiting: list[Question] = []
        self._open = 0  # points that were asked for and not told
        self._answers: list[Answer] = []
        self._begun = self._ended = False

    def ask(self) -> Question | Wait | None:
        """The next point of what was yielded; None where the story has ended."""
        while not self._waiting and not self._ended:
            if self._open:
                return WAIT
            answers, self._answers = self._answers, []
            try:
                found = self._story.send(answers) if self._begun else next(self._story)
                self._waiting = list(found)
            except StopIteration:
                self._ended = True
            self._begun = True
        if not self._waiting:
            return None
        self._open += 1
        return self._waiting.pop(0)

    def tell(self, question: Question, values: Sequence[float]) -> None:
        """Of what was asked for, in that order."""
        if self._open:
            self._open -= 1
            self._answers.append((asked(question)[0], values[0]))
