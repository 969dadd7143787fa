"""Solve every layer of a pruned network anew, so that it answers as the dense one did.

In the order of the graph, each reader is given what the pruned network (with all layers before it
solved already) hands it, and the answers of the dense network as targets: sequential least
squares. Where its answer is added to a skip path, the target also makes up for what the skip path
lost. Batch norms take their statistics from the stream on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from secateur.errors import InputError
from secateur.repair.prefixes import Prefixes, Shared
from secateur.repair.readers import shared_readers
from secateur.repair.solver import Cut, Solved, Solver
from secateur.repair.streaming import Side, walk
from secateur.structure.inputs import ExampleInputs, as_arguments, batch_size
from secateur.structure.structure import Removal, Structure
from secateur.surgery.tensors import named_tensors


@dataclass(frozen=True, eq=False)
class Compensation:
    """New tensors by name, in the shapes of the dense model, and what each layer gained.

    answers: flat outputs of the compensated network for every batch, those held out at the end.
    wanted:  those of the dense one.
    """

    tensors: Mapping[str, Tensor]
    solved: tuple[Solved, ...]
    answers: tuple[tuple[Tensor, ...], ...]
    wanted: tuple[tuple[Tensor, ...], ...]


def compensate(
    model: nn.Module,
    structure: Structure,
    remove: Removal,
    batches: Sequence[ExampleInputs],
    seed: int = 0,
    held: Sequence[ExampleInputs] = (),
    cut: Cut | None = None,
    foreign: bool = False,
    prefixes: Prefixes | None = None,
) -> Compensation:
    """Tensors for the dense model with which the pruned one answers best.

    batches: calibration inputs without targets, of the part where the structure is of one; see
    ``fitting``. held: inputs that are answered, and from which nothing is learnt.
    cut: what single weights of each layer become, once its inputs are known. foreign: whether the
    inputs are others than the network was trained for: statistics of batch norms are then changed
    by what the removal changes, and not computed anew. prefixes: what earlier calls with the same
    model, batches, seed and ``foreign`` have solved alike; without ``cut``.
    What left is zero in the tensors of the layers that were solved; all others, and all biases
    and statistics, are whole.
    Errors: InputError without batches, and for batches of another size than the model was captured
    with where it takes no other.
    """
    if not batches:
        raise InputError("compensation needs calibration inputs; give at least one batch")
    every = [*batches, *held]
    sizes = {batch_size(as_arguments(batch)) for batch in every}
    if not structure.captured.dynamic and sizes != {structure.captured.batch}:
        raise InputError(
            f"torch.export captured this model for batches of {structure.captured.batch} alone; "
            "give calibration batches of that size (data.batch_size), or leave compensation out "
            "(pruning.compensate: false)"
        )
    own = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    dense = Side(structure, {}, own, every)
    pruned = Side(structure, remove, own, every)
    solver = Solver(
        structure, structure.kept(remove), structure.dropped(remove), dense, pruned, seed,
        len(batches), cut, foreign,
    )  # fmt: skip
    if cut is not None or shared_readers(structure):  # what later nodes say comes first
        prefixes = None
    solver.solve_shared(lambda: Side(structure, {}, own, batches))
    shared = None if prefixes is None else Shared(prefixes, remove, solver)
    begin = 0 if shared is None else shared.go_on()
    reached = _nothing if shared is None else shared.reached
    wanted, answers = walk(structure, [dense, pruned], solver.before, begin=begin, reached=reached)
    return Compensation(
        solver.changed, tuple(solver.solved), tuple(map(tuple, answers)), tuple(map(tuple, wanted))
    )


def _nothing(place: int) -> None:
    pass
