"""docs/results/zoo-peer.md: the zoo under Torch-Pruning beside Secateur."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.ledger import Ledger, Row
from benchmarks.summary import table
from benchmarks.zoo_peer import LIMIT

OURS = Path(__file__).parents[1] / "model_zoo" / "results"
SCALE = "scale of attention"
CAUSES = {
    "no end": f"its search for groups goes on after {LIMIT} s of processor time, or takes 6 GiB",
    "graph": "an error while it builds its graph and its groups",
    "step": "an error while it prunes",
    "forward": "the pruned model does not run",
    "output shape": "the outputs have other shapes",
    "wrong outputs": "the pruned model runs and computes something else, without a word",
    SCALE: "the same, but equal once attention is scaled as in the dense model",
    "batch": "the pruned model holds for the batch of the example alone",
    "nothing pruned": "no tensor became smaller",
    "no effect": "what left changes nothing that can be noticed",
    "cut unknown": "what left of a tensor is no slice of it",
}
HOW = """\
Which share of its zoo ([The zoo](../zoo.md)) the nearest peer gets right, by the same checker: the
same models with the same random float64 weights and inputs, half of the units of every group that
the tool finds, any of them, and the outputs of the smaller model against those of the dense one
whose removed slices are zero. The difference may be 1e-6 of what the removal changed, which must be
1e-3 of the output at least; the outputs must keep their shapes, and one sample and three must give
what they give in a batch of two. Norms may take their statistics over what is left, on both sides.

**How Torch-Pruning is driven.** `BasePruner` with random importance (it reads no weights, so that
it cannot fail at them), ratio 0.5, not global, one step. The cut is read from the tensors: before
pruning each parameter's gradient holds the numbers of its entries, which Torch-Pruning cuts along.
The time limit is {limit} s of processor time for graph and step together.

- *Nothing declared*: it is told only what keeps the outputs as they are, as Secateur does unasked:
  `ignored_layers` are the layers next to each output in the autograd graph, back through everything
  that is no layer with weights, found by us and not by its user. Besides, all parameters are set to
  require gradients, and `output_transform` hands it the float outputs without caches, summed where
  they come by name as in its examples for transformers.
- *Told as in its examples*: also what its own examples tell by hand of attention, where it can be
  read off the modules: `num_heads` of layers of queries, keys and values (grouped ones with their
  own number), `out_channel_groups` of `nn.MultiheadAttention` and of packed gates, a pruner for
  Swin's patch merging; after pruning the sizes that attentions keep (`num_heads`, `head_dim`,
  `all_head_size`, …, `hidden_dim` of torchvision's); no caches, and no fused attention in timm. As
  in these examples text models lose whole heads, all others the width of heads. A model where
  nothing can be told counts here with its result of the first column.

Secateur is told nothing in either. Its zoo asks more than is asked here: a plan with other units
must be noticed, and the pruned model must hold a second random plan."""


@dataclass(frozen=True)
class Line:
    """What both sides made of a model."""

    model: str
    nothing: Row
    hints: Row | None
    ours: Row | None

    @property
    def library(self) -> str:
        """The part of the name in front of the colon."""
        return self.model.partition(":")[0]

    @property
    def best(self) -> Row:
        """Told as in its examples where there is anything to tell."""
        return self.hints or self.nothing


def page(rows: Sequence[Row]) -> str:
    """The page from both ledgers; models that Secateur's zoo has not checked yet are left out."""
    ours = {row["cell"]["model"]: row["result"] for row in Ledger("zoo", OURS).rows()}
    return text(rows, ours)


def text(rows: Sequence[Row], ours: dict[str, Row]) -> str:
    """The same from the results alone."""
    told = {(row["cell"]["model"], row["cell"]["told"]): row["result"] for row in rows}
    everything = [
        Line(model, result, told.get((model, "hints")), ours.get(model))
        for (model, how), result in told.items()
        if how == "nothing"
    ]
    lines = [line for line in everything if line.ours is not None]
    where, cell = rows[-1]["environment"], rows[-1]["cell"]
    return "\n".join([
        "# The zoo under Torch-Pruning\n",
        HOW.format(limit=LIMIT),
        f"\nTorch-Pruning {cell['torch_pruning']}, torch {where['torch']}, Python "
        f"{where['python']}, {where['cpu']}, one thread, beside other work. Reproduce: `python -m "
        "benchmarks zoo_peer` for its side, `make zoo` for ours.\n",
        f"{len(lines)} models were checked on both sides"
        f" ({len(everything) - len(lines)} more on its side alone, not counted here).\n",
        "## Models that pass\n",
        table(["", "models", "Torch-Pruning, nothing declared", "told as in its examples",
               "the same, a changed scale of attention let pass", "Secateur"],
              list(_totals(lines))),
        "\nThe last column of Torch-Pruning counts what differs from the zeroed model by nothing "
        "but the scale of attention: a head that keeps half of its width is then scaled by its new "
        "width. That is another function than the dense model's, but one may want it.\n",
        "## Why it does not pass\n",
        table(["cause", "nothing declared", "told as in its examples"], list(_causes(lines))),
        "\n## Time\n",
        "Seconds on the wall for the median model, of those where both came to an end: graph and "
        "step of Torch-Pruning; trace, most of it `torch.export`, and apply of Secateur. Both ran "
        "beside other work, which stretches walls; the time of the processor is given where it was "
        "noted.\n",
        table(["", "models", "Torch-Pruning", "of the processor", "Secateur",
               "Secateur ÷ Torch-Pruning"], list(_times(lines))),
        "\n## Where Torch-Pruning is better\n",
        *_better(lines),
        *_tables(lines),
        "",
    ])  # fmt: skip


def _totals(lines: Sequence[Line]) -> Iterable[list[str]]:
    libraries = list(dict.fromkeys(line.library for line in lines))
    for attention, words in ((False, "without attention"), (True, "with attention")):
        for library in libraries:
            some = [
                x for x in lines if x.library == library and x.nothing["attention"] == attention
            ]
            if some:
                yield _total(f"{library}, {words}", some)
    for attention, words in ((False, "all without attention"), (True, "all with attention")):
        yield _total(words, [x for x in lines if x.nothing["attention"] == attention])
    yield _total("**all**", lines)


def _total(words: str, lines: Sequence[Line]) -> list[str]:
    scale = [x for x in lines if _passed(x.best) or x.best.get("cause") == SCALE]
    return [
        words, str(len(lines)),
        _share([x for x in lines if _passed(x.nothing)], lines),
        _share([x for x in lines if _passed(x.best)], lines),
        _share(scale, lines),
        _share([x for x in lines if _passed(x.ours)], lines),
    ]  # fmt: skip


def _causes(lines: Sequence[Line]) -> Iterable[list[str]]:
    nothing = Counter(x.nothing.get("cause") for x in lines)
    best = Counter(x.best.get("cause") for x in lines)
    for cause, words in CAUSES.items():
        if nothing[cause] or best[cause]:
            yield [f"**{cause}**: {words}", str(nothing[cause]), str(best[cause])]


def _times(lines: Sequence[Line]) -> Iterable[list[str]]:
    libraries = dict.fromkeys(line.library for line in lines)
    parts = [(library, [x for x in lines if x.library == library]) for library in libraries]
    for words, some in [*parts, ("**all**", lines)]:
        pairs = [
            (theirs, sum(x.nothing["processor"].values()), ours)
            for x in some
            if (theirs := _seconds(x.nothing, "step")) and (ours := _seconds(x.ours, "apply"))
        ]
        if pairs:
            theirs, processor, ours = (median(column) for column in zip(*pairs, strict=True))
            ratio = median(pair[2] / pair[0] for pair in pairs)
            yield [words, str(len(pairs)), f"{theirs:.2f} s", f"{processor:.2f} s",
                   f"{ours:.2f} s", f"{ratio:.0f}"]  # fmt: skip


def _better(lines: Sequence[Line]) -> Iterable[str]:
    faster = ended = 0
    for x in lines:
        theirs, ours = _seconds(x.nothing, "step"), _seconds(x.ours, "apply")
        if theirs and ours:
            ended += 1
            faster += theirs < ours
    yield f"- It is faster on {faster} of {ended} models where both came to an end.\n"
    smaller = [
        x for x in lines
        if x.ours and _passed(x.best) and _passed(x.ours) and x.best["left"] < x.ours["left"] - 5e-4
    ]  # fmt: skip
    both = [x for x in lines if _passed(x.best) and _passed(x.ours)]
    yield f"- It leaves fewer parameters on {len(smaller)} of {len(both)} that both pass.\n"
    alone = [x for x in lines if _passed(x.best) and not _passed(x.ours)]
    yield f"- It passes {len(alone)} that Secateur does not" + (":\n" if alone else ".\n")
    if alone:
        yield table(
            ["model", "told", "what keeps Secateur"],
            [[x.model, "nothing" if _passed(x.nothing) else "as in its examples",
              _cell((x.ours or {}).get("why", "–"))] for x in alone],
        )  # fmt: skip


def _tables(lines: Sequence[Line]) -> Iterable[str]:
    for library in dict.fromkeys(line.library for line in lines):
        yield f"\n## {library}\n"
        yield table(
            ["model", "attention", "Torch-Pruning, nothing declared", "told as in its examples",
             "left", "s", "Secateur", "left", "s"],
            [_line(x) for x in sorted(lines, key=lambda x: x.model) if x.library == library],
        )  # fmt: skip


def _line(x: Line) -> list[str]:
    ours = x.ours or {}
    best = x.best if _passed(x.best) else x.nothing
    return [
        x.model.partition(":")[2], "yes" if x.nothing["attention"] else "",
        _verdict(x.nothing), "" if x.hints is None else _verdict(x.hints),
        _number(best.get("left"), ".0%"), _number(_seconds(best, "step"), ".1f"),
        ours.get("verdict", "–"), _number(ours.get("left"), ".0%"),
        _number(_seconds(ours, "apply"), ".1f"),
    ]  # fmt: skip


def _verdict(row: Row) -> str:
    if _passed(row):
        return f"**{row['verdict']}**"
    why = row["why"].partition(": ")[2] or row["why"]
    return f"{row['cause']}: {_cell(why)}"


def _passed(row: Row | None) -> bool:
    return row is not None and row["verdict"] != "failed"


def _seconds(row: Row | None, last: str) -> float | None:
    """Of all parts up to ``last``; None where that was not reached."""
    seconds = (row or {}).get("seconds", {})
    if last not in seconds:
        return None
    return sum(seconds[part] for part in ("graph", "step", "trace", "apply") if part in seconds)


def _share(some: Sequence[Line], lines: Sequence[Line]) -> str:
    return f"{len(some)} ({len(some) / len(lines):.0%})" if lines else "–"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _cell(words: str) -> str:
    words = words.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return words if len(words) <= 90 else words[:87] + "…"
