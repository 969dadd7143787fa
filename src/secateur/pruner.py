"""``Pruner``: pruning in a training loop of the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from secateur.choosing import plan as choose_plan
from secateur.config import load_document, sentence
from secateur.cutting import cut_further
from secateur.errors import InputError
from secateur.job.methods import methods_of
from secateur.masking.storing import sliced_masks
from secateur.planning import PruningPlan
from secateur.protocols import Data
from secateur.quantities import Quantity, parse_quantity
from secateur.schedules import share_at
from secateur.sections.pruner import PrunerSection
from secateur.structure.copying import copied
from secateur.structure.structure import Removal, trace
from secateur.surgery.applying import apply
from secateur.surgery.optimizers import cut_optimizer
from secateur.training.devices import device_of
from secateur.training.extensions import Kept, Moment, begin_all, joined, shown
from secateur.training.hooks import Hooks

SCHEMA = "secateur.pruner/1"


class Pruner:
    """Prunes a model that somebody else trains.

        pruner = sc.Pruner(model, {"updates": 1000, "during": {"method": "gradual", "zeros": 0.8}},
                           example_inputs, optimizer)
        for inputs, targets in batches:
            loss_of(pruner.model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()
        model = pruner.finish()

    recipe:    a mapping, or a YAML file, with the keys of ``sections/pruner.py``.
    optimizer: hooked, so that gradients and weights are seen before each of its steps; where units
               leave its moments are cut along. Wanted by ``during`` and ``regularise``.
    hook_optimizer: False where gradients are made inside of ``optimizer.step(closure)``; then call
               ``before_step`` when they are there.
    data:      (inputs, targets) batches or ``Data``, for criteria that read some.
    ``model`` is the model as it is now: another object after each cut. What masks hide lives on in
    it; a forward pass runs the masked model, in training and in evaluation.
    Errors: InputError for recipes that cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Mapping[str, Any] | str | Path,
        example_inputs: Any,
        optimizer: torch.optim.Optimizer | None = None,
        data: Data | Any = None,
        hook_optimizer: bool = True,
    ) -> None:
        self.recipe = _read(recipe)
        self.model, self.optimizer = model, optimizer
        self.inputs, self.data = example_inputs, data
        self.methods = methods_of(self.recipe)
        if self.methods and optimizer is None:
            raise InputError(
                "during and regularise take part in every step of the optimizer; give Pruner(..., "
                "optimizer=...)"
            )
        self.structure = self._now = trace(model, example_inputs)
        budgets = {"flops": self.recipe.flops, "params": self.recipe.params}
        self.budgets = {
            kind: parse_quantity(amount, kind)  # type: ignore[arg-type]
            for kind, amount in budgets.items()
            if amount is not None
        }
        self.dense = copied(model) if self.budgets else model
        self.plan: PruningPlan | None = None
        self.masks: dict[str, Tensor] = {}
        self.update, self._finished = 0, False
        self.extensions: tuple[Any, ...] = ()
        self.generators: tuple[torch.Generator, ...] = ()
        if optimizer is not None:
            self.extensions, self.generators = begin_all(
                self.methods, model, optimizer, self.structure, self.recipe.seed, device_of(model)
            )
        readers = [type(m).__name__ for m, e in zip(self.methods, self.extensions, strict=True)
                   if e.reads_batch]  # fmt: skip
        if readers:
            raise InputError(
                f"{readers[0]} reads inputs and answers of each batch, which a Pruner does not "
                "see; train with secateur's own loop, or leave it out"
            )
        self._hooks = Hooks(model, optimizer, self.extensions, self._moment, hook_optimizer)

    def step(self) -> bool:
        """Call it after each step of the optimizer; whether ``model`` is another one now.

        Errors: InputError without a step of the optimizer before it.
        """
        if self._finished:
            raise InputError("the pruner has finished; make a new one to prune further")
        if self.extensions and not self._hooks.moved:
            raise InputError(
                "pruner.step() comes after a step of the optimizer that was given to the Pruner, "
                "and there was none; call optimizer.step() first"
            )
        at = self._moment()
        for extension in self.extensions:
            extension.after_step(at)
        self._hooks.moved = False
        last = at.epoch != self._epoch(self.update + 1)
        if last:
            for extension in self.extensions:
                extension.after_epoch(at)
        self.update += 1
        if self.budgets and self.recipe.steps > 1 and self._due():
            return self._cut_to(self._share())
        return False

    def before_step(self) -> None:
        """Gradients are there and the optimizer is about to step; the hook calls it by itself."""
        self._hooks.before_step()

    def finish(self) -> nn.Module:
        """The pruned model: masks are zeros in it, units that shall leave are removed.

        ``masks`` and ``plan`` say what left. Errors: InputError where updates are missing that a
        method needs; NotExact where the cut model is not the zeroed one.
        """
        if self._finished:
            return self.model
        self._hooks.withdraw()
        last = Moment(
            max(0, self.update - 1), self.recipe.updates, self._epoch(max(0, self.update - 1)),
            self.recipe.epochs, self._rate(),
        )  # fmt: skip
        early = [m for m, e in zip(self.methods, self.extensions, strict=True)
                 if not e.settled(last)]  # fmt: skip
        if early:
            raise InputError(
                f"{type(early[0]).__name__} is not done after {self.update} of "
                f"{self.recipe.updates} updates; call step() after each of them before finish()"
            )
        self._hooks.detach()
        for extension in self.extensions:
            extension.show()
        outcome = joined([extension.finish() for extension in self.extensions])
        self._finished = True
        if outcome.remove:
            self._cut(outcome.remove)
        self.masks = dict(outcome.masks)
        if self.masks and outcome.remove:
            self.masks = sliced_masks(self.masks, self.structure, outcome.remove)
        if self.budgets:
            self._cut_to(1.0)
        return self.model

    @contextmanager
    def shown(self) -> Iterator[nn.Module]:
        """The model as it would be if the training ended now, e.g. to save it."""
        self._hooks.withdraw()
        with shown(self.extensions):
            yield self.model

    def state_dict(self) -> dict[str, Any]:
        """All that a Pruner needs to go on: tensors, numbers and strings.

        Save it with the model and the optimizer, between ``step`` and the next forward pass.
        """
        self._hooks.withdraw()
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "recipe": self.recipe.model_dump_json(),
            "update": self.update,
            "plan": self.plan.to_json() if self.plan is not None else "",
        }
        for place, (extension, generator) in enumerate(self._parts()):
            kept = extension.keep()
            found[f"values{place}"] = json.dumps(dict(kept.values))
            found[f"generator{place}"] = generator.get_state()
            found |= {f"tensor{place}/{n}": t.detach().clone() for n, t in kept.tensors.items()}
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; load those of ``pruner.model`` and of the optimizer after it.

        Errors: InputError for the state of another recipe.
        """
        if state.get("schema") != SCHEMA:
            raise InputError(f"this is no state of a Pruner ({SCHEMA})")
        if state["recipe"] != self.recipe.model_dump_json():
            raise InputError(
                "the state was written with another recipe; give the Pruner the one that it was "
                "made with"
            )
        self._hooks.withdraw()
        if state["plan"]:
            self._carry_out(PruningPlan.from_json(state["plan"]))
        self.update = int(state["update"])
        device = device_of(self.model)
        for place, (extension, generator) in enumerate(self._parts()):
            start = f"tensor{place}/"
            tensors = {n.removeprefix(start): t.detach().clone().to(device)
                       for n, t in state.items() if n.startswith(start)}  # fmt: skip
            extension.take_up(Kept(tensors, json.loads(state[f"values{place}"])))
            generator.set_state(state[f"generator{place}"])

    def _parts(self) -> list[tuple[Any, torch.Generator]]:
        return list(zip(self.extensions, self.generators, strict=True))

    def _epoch(self, update: int) -> int:
        return min(self.recipe.epochs - 1, update * self.recipe.epochs // self.recipe.updates) if (
            update < self.recipe.updates
        ) else self.recipe.epochs  # fmt: skip

    def _rate(self) -> float:
        return 0.0 if self.optimizer is None else float(self.optimizer.param_groups[0]["lr"])

    def _moment(self) -> Moment:
        recipe = self.recipe
        epoch = min(recipe.epochs - 1, self._epoch(self.update))
        return Moment(self.update, recipe.updates, epoch, recipe.epochs, self._rate())

    # cuts

    def _edges(self) -> list[int]:
        """Updates after which units leave."""
        recipe = self.recipe
        first, last = round(recipe.start * recipe.updates), round(recipe.until * recipe.updates)
        steps = recipe.steps
        return [max(1, round(first + (last - first) * n / steps)) for n in range(1, steps + 1)]

    def _due(self) -> bool:
        return self.update in self._edges()

    def _share(self) -> float:
        """Progress of the cuts: the number of those that are due over all."""
        return sum(edge <= self.update for edge in self._edges()) / self.recipe.steps

    def _cut_to(self, progress: float) -> bool:
        """Remove units until the budgets hold that the schedule has at this point."""
        full = self.structure.cost({})
        now = self._now.cost({})
        budget: dict[str, Any] = {}
        for kind, wanted in self.budgets.items():
            whole = float(getattr(full, kind))
            goal = min(1.0, wanted.resolve(whole) / whole)
            removed = share_at(self.recipe.schedule, progress, 1 - goal) if goal < 1 else 0.0
            left = (1 - removed) * whole / float(getattr(now, kind))
            if left < 1:
                budget[kind] = Quantity(left, "fraction")
        if not budget:
            return False
        recipe = self.recipe
        chosen = choose_plan(
            self.model, self._now, recipe.criterion, budget, recipe.scope, self.data,
            round_to=recipe.round_to, floor=recipe.floor, layers=recipe.layers, seed=recipe.seed,
        )  # fmt: skip
        return self._cut(chosen.remove)

    def _cut(self, remove: Removal) -> bool:
        if not any(len(units) for units in remove.values()):
            return False
        whole, pruned = cut_further(
            self.dense, self.structure, self.plan, self.model, self._now, remove, self.inputs,
            {"by": "secateur.Pruner", "update": self.update},
        )  # fmt: skip
        self._replace(whole, pruned, remove)
        return True

    def _carry_out(self, whole: PruningPlan) -> None:
        """The cuts of a state, on a model that has had none."""
        mode = self.model.training
        pruned = apply(self.model.eval(), whole, self.inputs, structure=self.structure).train(mode)
        self._replace(whole, pruned, whole.remove)

    def _replace(self, whole: PruningPlan, pruned: nn.Module, remove: Removal) -> None:
        if self.optimizer is not None:
            cut_optimizer(self.optimizer, self.model, pruned, self._now, remove)
        self.model, self.plan = pruned, whole
        self._now = trace(pruned, self.inputs)


def _read(recipe: Mapping[str, Any] | str | Path) -> PrunerSection:
    document = dict(recipe) if isinstance(recipe, Mapping) else load_document(recipe)
    document.pop("folder", None)
    try:
        return PrunerSection.model_validate(document)
    except ValidationError as error:
        raise InputError(f"Pruner: {sentence(error, PrunerSection)}") from error
