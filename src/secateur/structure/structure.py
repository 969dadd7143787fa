"""``trace``: the whole of floor 1 in one call, and ``Structure``, its answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property

import numpy as np
from torch import nn

import secateur.structure.rules  # noqa: F401  (registers the rules)
from secateur.errors import CaptureError, PlanError
from secateur.structure.boundary import CLOSED, Boundary
from secateur.structure.branches import NOTHING, Branch, Dropped, Flow, branches, dropped
from secateur.structure.capture import Captured
from secateur.structure.explaining import Trail, trail
from secateur.structure.grouping import Grouping, group
from secateur.structure.groups import BRANCH, Frozen, Group
from secateur.structure.inputs import ExampleInputs
from secateur.structure.ledger import Cost, Ledger
from secateur.structure.parts import arguments_of, belongs, capture_part, part_of
from secateur.structure.reading import read
from secateur.structure.solving import Solution, solve
from secateur.structure.taking import taken_by
from secateur.structure.tracer import Tracer

Removal = Mapping[str, Sequence[int] | np.ndarray]


@dataclass(frozen=True, eq=False)
class Structure:
    """What belongs together in a model.

    groups:      sets of interchangeable units and all they touch.
    frozen:      dimensions that cannot leave, the operation and source line that hold them.
    fingerprint: of tensor names, shapes and groups, not of weights.
    shapes:      shape of every parameter and buffer, by canonical name.
    aliases:     tied name -> canonical name.
    notes:       what could not be captured, in words.
    part:        dotted path of the module that was read, "" for the whole model.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    fingerprint: str
    shapes: Mapping[str, tuple[int, ...]]
    aliases: Mapping[str, str]
    notes: tuple[str, ...]
    tracer: Tracer = field(repr=False)
    solution: Solution = field(repr=False)
    grouping: Grouping = field(repr=False)
    captured: Captured = field(repr=False)
    captured_training: Captured | None = field(repr=False)
    part: str = ""

    def group(self, name: str) -> Group:
        """The group of that name. Errors: PlanError with the nearest name."""
        for candidate in self.groups:
            if candidate.name == name:
                return candidate
        near = get_close_matches(name, [g.name for g in self.groups], 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise PlanError(f"there is no group '{name}' among the {len(self.groups)}{hint}")

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What is added to a skip path and can leave whole, each as one unit of its name."""
        return self._branches

    @cached_property
    def _branches(self) -> tuple[Branch, ...]:
        return branches(self._flows, self.tracer, self.groups)

    @cached_property
    def _flows(self) -> list[Flow]:
        captures = [self.captured, self.captured_training]
        return [Flow.of(captured.module.graph) for captured in captures if captured is not None]

    def dropped(self, remove: Removal) -> Dropped:
        """What leaves with the branches that a removal names. Errors: PlanError for others."""
        names = frozenset(n for n, units in remove.items() if n.startswith(BRANCH) and len(units))
        if names not in self._drops:
            known = {branch.name: branch for branch in self.branches}
            for name in sorted(names - known.keys()):
                near = get_close_matches(name, known, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise PlanError(f"there is no '{name}' among the {len(known)} branches{hint}")
            joins = {join: kept for name in names for join, kept in known[name].joins.items()}
            self._drops[names] = dropped(self._flows, self.tracer, joins)
        return self._drops[names]

    @cached_property
    def _drops(self) -> dict[frozenset[str], Dropped]:
        return {frozenset(): NOTHING}

    def gone(self, remove: Removal) -> np.ndarray:
        """bool [classes]: the classes of ids that leave with the given units of groups."""
        gone = np.zeros(int(self.solution.labels.max()) + 1, bool)
        for name, units in remove.items():
            if len(units) and not name.startswith(BRANCH):
                if name not in self._taken:
                    self._taken[name] = taken_by(self.grouping.closures[self.group(name).name])
                gone[self._taken[name](np.asarray(units, np.int64))] = True
        return gone

    @cached_property
    def _taken(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """Of each group that was asked for: units -> classes that leave with them."""
        return {}

    def kept(self, remove: Removal) -> dict[tuple[str, int], np.ndarray]:
        """Surviving indices of every tensor dimension that the removal touches."""
        gone = self.gone(remove)[self.solution.labels]
        result = {}
        for name, value in self.tracer.tensors.items():
            for dim, ids in enumerate(value):
                lost = gone[np.abs(ids)]
                if lost.any():
                    result[name, dim] = np.flatnonzero(~lost)
        return result

    def lost_inputs(self, remove: Removal) -> dict[tuple[int, int], np.ndarray]:
        """Indices of (place among the flat inputs, dimension) that a removal takes."""
        gone = self.gone(remove)[self.solution.labels]
        nodes = [n for n in self.captured.module.graph.nodes if n.op == "placeholder"]
        return {
            (place, dim): np.flatnonzero(gone[np.abs(self.tracer.values[nodes[place]][dim])])
            for place, dim in self.tracer.boundary.inputs
        }

    def cost(self, remove: Removal) -> Cost:
        """Parameters, FLOPs and bytes after a removal, from the structure alone."""
        drop = self.dropped(remove)
        if drop not in self._ledgers:
            self._ledgers[drop] = self._ledgers[NOTHING].without(drop)
        return self._ledgers[drop].cost(self.gone(remove))

    @cached_property
    def _ledgers(self) -> dict[Dropped, Ledger]:
        return {NOTHING: Ledger.of(self.tracer, self.captured, self.solution)}

    def uses(self, tensor: str) -> tuple[str, ...]:
        """Names of the operations that read a tensor in the eval graph, sorted; () for none."""
        return self._uses.get(self.aliases.get(tensor, tensor), ())

    @cached_property
    def _uses(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for node in self.captured.module.graph.nodes:
            if node.op == "get_attr":
                name = self.aliases.get(str(node.target), str(node.target))
                found.setdefault(name, []).extend(str(user.target) for user in node.users)
        return {name: tuple(sorted(operations)) for name, operations in found.items()}

    def explain(self, tensor: str, i: int, j: int, dim: int = 0) -> Trail:
        """Through which operations indices i and j of a dimension came to leave together."""
        tensor = self.aliases.get(tensor, tensor)
        if tensor not in self.tracer.tensors:
            raise PlanError(f"there is no tensor '{tensor}' in the model")
        shape = self.shapes[tensor]
        if not 0 <= dim < len(shape) or not all(0 <= index < shape[dim] for index in (i, j)):
            raise PlanError(
                f"'{tensor}' of shape {'x'.join(map(str, shape))} has no indices {i} and {j} in "
                f"dimension {dim}"
            )
        ids = np.abs(self.tracer.tensors[tensor][dim])
        return trail(self.tracer, self.solution, int(ids[i]), int(ids[j]))

    def __str__(self) -> str:
        lines = [f"{'group':40} {'units':>6} {'members':>8}  note"]
        for g in self.groups:
            note = "" if g.exact else "adapted"
            if g.overlaps:
                note = f"{note} crosses {', '.join(g.overlaps)}".strip()
            lines.append(f"{g.name:40} {g.size:6} {len(g.members):8}  {note}")
        if self.frozen:
            lines.append(f"frozen: {len({(f.tensor, f.dim) for f in self.frozen})} dimensions")
        return "\n".join(lines)

    __repr__ = __str__


def trace(
    model: nn.Module,
    example_inputs: ExampleInputs,
    boundary: Boundary = CLOSED,
    part: str = "",
) -> Structure:
    """Read which indices of which tensors leave together.

    example_inputs: a tensor, a tuple, a dict, or a pair (tuple, dict); a batch of 1 is enough.
    boundary: dimensions of inputs and outputs that may leave; see ``keep_classes``.
    part: dotted path of a module, to prune inside it alone: what it takes and returns stays, and
          FLOPs are those of the part. For models that torch.export cannot follow as a whole.
    Where eval mode leaves parameters unused (auxiliary heads) the graph of train mode is read too.
    Errors: CaptureError where torch.export cannot follow the model; InputError for a part that
    is not there or not called.
    """
    inputs = arguments_of(model, example_inputs, part)
    captured = capture_part(model, part, inputs)
    tracer = Tracer(model, boundary)
    _hold_outside(tracer, model, part)
    read(tracer, captured)
    if not _trains_more(model, tracer, part):
        return _solved(tracer, captured, None, captured.notes, part)
    try:
        training = capture_part(model, part, inputs, training=True)
    except CaptureError as error:
        notes = (*captured.notes, f"train mode was not captured: {error}")
        return _solved(tracer, captured, None, notes, part)
    read(tracer, training)
    return _solved(tracer, captured, training, captured.notes, part)


def with_train_graph(
    structure: Structure, model: nn.Module, example_inputs: ExampleInputs
) -> Structure:
    """The structure with the graph of train mode read as well.

    Errors: CaptureError where torch.export cannot follow the model in train mode.
    """
    if structure.captured_training is not None:
        return structure
    inputs = structure.captured.arguments if structure.part else example_inputs
    training = capture_part(model, structure.part, inputs, training=True)
    tracer = structure.tracer.forked()
    read(tracer, training)
    return _solved(tracer, structure.captured, training, structure.notes, structure.part)


def _solved(
    tracer: Tracer,
    captured: Captured,
    training: Captured | None,
    notes: tuple[str, ...],
    part: str,
) -> Structure:
    held = tracer.forked()  # the train graph may use what the eval graph does not
    for name, value in tracer.tensors.items():
        if name not in tracer.used and belongs(name, part):
            held.pin(value, "forward does not use it")
    unknown = tuple(
        f"{node.target}: {reason}; what it touches is frozen"
        for node, reason in tracer.unknown.items()
    )
    solution = solve(held.axes)
    grouping = group(held, solution)
    shapes = {name: value.shape for name, value in tracer.tensors.items()}
    return Structure(
        grouping.groups,
        grouping.frozen,
        fingerprint(shapes, grouping.groups),
        shapes,
        dict(tracer.aliases),
        tuple(dict.fromkeys((*notes, *unknown))),
        tracer,
        solution,
        grouping,
        captured,
        training,
        part,
    )


def _hold_outside(tracer: Tracer, model: nn.Module, part: str) -> None:
    """Tensors that are not of the part alone stay."""
    if not part:
        return
    part_of(model, part)
    names = [*tracer.tensors, *tracer.aliases]
    for name in names:
        if not belongs(name, part):
            canonical = tracer.aliases.get(name, name)
            tracer.pin(tracer.tensors[canonical], f"it is not of the part '{part}' alone")


def _trains_more(model: nn.Module, tracer: Tracer, part: str) -> bool:
    """Parameters that the eval graph does not use may be used in train mode."""
    return any(
        tracer.aliases.get(name, name) not in tracer.used
        for name, _ in model.named_parameters()
        if belongs(name, part)
    )


def fingerprint(shapes: Mapping[str, tuple[int, ...]], groups: Sequence[Group]) -> str:
    """sha256 of tensor names, shapes and groups."""
    digest = hashlib.sha256()
    for name, shape in shapes.items():
        digest.update(f"{name}{tuple(shape)}\n".encode())
    for g in groups:
        digest.update(f"{g.name} {g.size} {g.exact}\n".encode())
        for member in g.members:
            digest.update(f"{member.tensor} {member.dim} {member.role}\n".encode())
            digest.update(np.ascontiguousarray(member.index, np.int64).tobytes())
    return f"sha256:{digest.hexdigest()}"
