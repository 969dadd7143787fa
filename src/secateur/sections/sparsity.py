"""The section ``sparsity`` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from secateur.sections.base import Section

BLOCKS = ("block", "even-block")  # granularities that have a size
SINGLE = ("obs", "wanda", "wanda-layer")  # methods that go weight by weight


class SparsitySection(Section):
    """Which single weights of the pruned model are zeroed, and stay zero in the training after it.

    pattern: ``unstructured``, or N:M, of which N of M neighbouring inputs stay. zeros: the share
    of each layer that is zero; total: instead, the share of the dense model's parameters that is
    gone at the end, removed or zero. block: rows and columns of blocks that leave whole. keep:
    names and globs of layers that stay whole.
    criterion: in place of a method, scores all elements before any leaves. granularity: what
    leaves together; pool: how its scores become one. scope: whether layers are compared. least:
    outputs of every layer that keep weights. rounds: cuts on the way, with the training
    ``between`` after each but the last. In place of zeros threshold, energy and natural_break say
    how many leave.
    """

    pattern: str = "unstructured"
    zeros: float | None = Field(default=None, gt=0, lt=1)
    total: float | None = Field(default=None, gt=0, lt=1)
    method: Literal["", "obs", "wanda", "wanda-layer", "magnitude", "random", "sampled"] = ""
    criterion: str = ""
    granularity: str = ""
    scope: Literal["", "global", "local", "erk"] = ""
    pool: Literal["", "mean", "sum", "mean-square", "norm"] = ""
    least: int = Field(default=0, ge=0)
    rounds: int = Field(default=1, ge=1)
    threshold: float | None = None
    energy: float | None = Field(default=None, gt=0, le=1)
    natural_break: bool = False
    block: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1, 1], min_length=2, max_length=2
    )
    keep: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _resolve(self) -> SparsitySection:
        rules = ("zeros", "total", "threshold", "energy", "natural_break")
        values = {name: getattr(self, name) for name in rules}
        given = [name for name, value in values.items() if value is not None and value is not False]
        if self.pattern != "unstructured":
            kept, _, of = self.pattern.partition(":")
            if not (kept.isdigit() and of.isdigit() and 0 < int(kept) < int(of)):
                raise ValueError(
                    f"pattern is {self.pattern!r}; expected 'unstructured' or N:M with N < M, such "
                    "as 2:4"
                )
            if given:
                raise ValueError(f"the pattern {self.pattern} says how many are zero; leave out "
                                 "zeros and total")  # fmt: skip
        elif len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are two ways to say it; give one")
        elif not given:
            object.__setattr__(self, "zeros", 0.5)
        if self.criterion:
            self._by_criterion()
        else:
            self._by_method(set(given) - {"zeros", "total"})
        return self

    def _by_criterion(self) -> None:
        if self.method:
            raise ValueError(
                f"the criterion {self.criterion!r} and the method {self.method!r} both choose what "
                "leaves; give one"
            )
        open_keys = {"granularity": "weight", "scope": "global", "pool": "mean"}
        for name, default in open_keys.items():
            if not getattr(self, name):
                object.__setattr__(self, name, default)
        if self.pattern != "unstructured" and self.granularity != "weight":
            raise ValueError(f"the pattern {self.pattern} is about single weights; leave the "
                             f"granularity {self.granularity!r} out")  # fmt: skip
        if (self.granularity in BLOCKS) == (self.block == [1, 1]):
            raise ValueError(
                "blocks that a criterion chooses take granularity: block, or even-block, and their "
                f"size, such as block: [4, 4]; here are {self.granularity!r} and {self.block}"
            )
        if self.rounds > 1 and self.zeros is None and self.total is None:
            raise ValueError("rounds go to a share step by step; give zeros or total")
        if self.scope == "erk" and self.zeros is None and self.total is None:
            raise ValueError("the scope 'erk' spreads a share over layers; give zeros or total")

    def _by_method(self, rules: set[str]) -> None:
        if not self.method:
            object.__setattr__(self, "method", "obs")
        if self.rounds > 1:
            rules = rules | {"rounds"}
        others = rules | {n for n in ("granularity", "scope", "pool", "least") if getattr(self, n)}
        if others:
            raise ValueError(
                f"{sorted(others)[0]} is about the scores of a criterion; give sparsity.criterion, "
                "such as l1, in place of a method"
            )
        if self.block != [1, 1] and (self.pattern != "unstructured" or self.method in SINGLE):
            raise ValueError(
                "blocks are for the pattern 'unstructured' with the methods magnitude, random or "
                f"sampled; here are {self.pattern!r} and {self.method!r}"
            )
