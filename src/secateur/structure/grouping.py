"""From the solved classes to groups of units with members, and to what is frozen and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from secateur.structure.axes import Sparse, labels_of
from secateur.structure.capture import module_path, source_line
from secateur.structure.groups import Frozen, Group, Member, Role
from secateur.structure.remedies import remedy_for
from secateur.structure.rules.convolution import KERNEL
from secateur.structure.solving import Solution
from secateur.structure.tracer import Tracer
from secateur.structure.values import Value


@dataclass(frozen=True, eq=False)
class Places:
    """All indices of all dimensions of all tensors in one line of positions."""

    blocks: tuple[tuple[str, int], ...]  # (tensor, dim)
    starts: np.ndarray  # first position of every block, and the total
    ids: np.ndarray  # id of every position

    @staticmethod
    def of(tensors: Mapping[str, Value]) -> Places:
        """Dimensions of size 1 are left out: they never leave."""
        blocks = [
            (name, d)
            for name, value in tensors.items()
            for d, ids in enumerate(value)
            if len(ids) > 1
        ]
        vectors = [tensors[name][d] for name, d in blocks]
        starts = np.cumsum([0, *(len(v) for v in vectors)])
        ids = np.abs(np.concatenate(vectors)) if vectors else np.zeros(0, np.int64)
        return Places(tuple(blocks), starts, ids)

    @property
    def block_of(self) -> np.ndarray:
        """Block number of every position."""
        return np.repeat(np.arange(len(self.blocks)), np.diff(self.starts))


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups, what each unit takes away (bool sparse [units, classes] per group), the frozen."""

    groups: tuple[Group, ...]
    closures: dict[str, Sparse]
    frozen: tuple[Frozen, ...]


def group(tracer: Tracer, solution: Solution) -> Grouping:
    """Sort units with the same signature of (tensor, dim, count) into groups."""
    places = Places.of(tracer.tensors)
    classes = int(solution.labels.max()) + 1
    position = np.arange(len(places.ids))
    member = csr_array(
        coo_array(
            (np.ones(len(position), np.int32), (solution.labels[places.ids], position)),
            shape=(classes, len(position)),
        )
    )
    owned = csr_array(solution.units.astype(np.int32) @ member)
    owned.sort_indices()
    block_of = places.block_of
    families = _families(owned, block_of, places, tracer)

    adapted = np.zeros(classes, np.int32)
    for entry in tracer.adapted:
        adapted[solution.labels[entry.ids]] = 1
    adapted[solution.frozen] = 0
    inexact = (solution.units.astype(np.int32) @ adapted) > 0

    roles = _roles(tracer, places)
    found: list[tuple[np.ndarray, np.ndarray]] = []  # (unit rows, positions [units, nnz])
    for rows in families:
        positions = np.stack([owned.indices[owned.indptr[r] : owned.indptr[r + 1]] for r in rows])
        order = np.lexsort(positions.T[::-1])
        found.append((rows[order], positions[order]))
    found.sort(key=lambda item: tuple(item[1][0]))

    names = _names([positions for _, positions in found], places, block_of, roles)
    cover = csr_array((len(found), len(position)), dtype=np.int32)
    if found:
        line = np.concatenate([np.full(p.size, g) for g, (_, p) in enumerate(found)])
        column = np.concatenate([p.reshape(-1) for _, p in found])
        cover = csr_array(
            coo_array((np.ones(len(line), np.int32), (line, column)), shape=cover.shape)
        )
        cover.data[:] = 1
    crossing = (cover @ cover.T).tolil()
    groups, closures = [], {}
    for number, (rows, positions) in enumerate(found):
        members = []
        for block in np.unique(block_of[positions[0]]):
            columns = block_of[positions[0]] == block
            tensor, dim = places.blocks[block]
            index = positions[:, columns] - places.starts[block]
            members.append(Member(tensor, dim, index, roles[int(block)]))
        overlaps = tuple(names[other] for other in crossing.rows[number] if other != number)
        exact = not inexact[rows].any()
        chosen = _chosen(tracer, solution, rows)
        groups.append(Group(names[number], len(rows), tuple(members), exact, overlaps, chosen))
        closures[names[number]] = solution.units[rows]
    covered = np.asarray(cover.sum(axis=0)).reshape(-1) > 0
    return Grouping(tuple(groups), closures, _frozen(tracer, solution, places, covered))


def _chosen(tracer: Tracer, solution: Solution, rows: np.ndarray) -> int:
    """Units that the data choose at a time; what is held is chosen in their place."""
    most = 0
    for entry in tracer.adapted:
        if not entry.chosen:
            continue
        labels = solution.labels[entry.ids]
        held = int((labels == solution.frozen).sum())
        owned = np.asarray(solution.units[rows][:, labels].sum(axis=1))
        if owned.any():
            most = max(most, 1, -(-(entry.chosen - held) // int(owned.min())))
    return most


def _families(
    owned: Sparse, block_of: np.ndarray, places: Places, tracer: Tracer
) -> list[np.ndarray]:
    """Rows of units that own the same number of indices of the same dimensions."""
    draw = np.random.default_rng(0)
    top = np.iinfo(np.int64).max
    by_block = draw.integers(top, size=len(places.blocks) or 1)
    by_position = draw.integers(top, size=len(places.ids) or 1)
    parameter = np.array([name not in tracer.buffers for name, _ in places.blocks], bool)
    rows = np.repeat(np.arange(owned.shape[0]), np.diff(owned.indptr))
    signature = np.zeros(owned.shape[0], np.int64)
    identity = np.zeros(owned.shape[0], np.int64)
    trained = np.zeros(owned.shape[0], bool)
    with np.errstate(over="ignore"):
        np.add.at(signature, rows, by_block[block_of[owned.indices]])
        np.add.at(identity, rows, by_position[owned.indices])
    if len(rows):
        trained[rows[parameter[block_of[owned.indices]]]] = True
    # A unit that owns a whole dimension would leave nothing of it.
    usable = trained.copy()
    if len(rows):
        key = rows * np.int64(len(places.blocks)) + block_of[owned.indices]
        pairs, counts = np.unique(key, return_counts=True)
        size = np.diff(places.starts)
        whole = counts == size[pairs % len(places.blocks)]
        usable[pairs[whole] // len(places.blocks)] = False
    usable = np.flatnonzero(usable)
    _, first = np.unique(identity[usable], return_index=True)
    usable = usable[np.sort(first)]
    _, family = np.unique(signature[usable], return_inverse=True)
    order = np.argsort(family, kind="stable")
    cuts = np.flatnonzero(np.diff(family[order])) + 1
    alike = [usable[rows] for rows in np.split(order, cuts)]
    return [part for rows in alike for part in _parted(rows, owned) if len(part) > 1]


def _parted(rows: np.ndarray, owned: Sparse) -> list[np.ndarray]:
    """Rows and columns of one square are alike: 4 heads of width 4 are not 8 units of a kind.

    Parts are told apart where each unit of one crosses every unit of the others, and none of
    its own. Units that all cross each other are of one kind: each is a row and a column.
    """
    own = owned[rows]
    if len(np.unique(own.indices)) == own.nnz:
        return [rows]
    apart = np.asarray((own @ own.T).todense()) == 0
    if not apart.any():  # rows and columns of a square at once (the products of all pairs)
        return [rows]
    count, part = connected_components(csr_array(apart), directed=False)
    within = part[:, None] == part
    np.fill_diagonal(within, False)
    if count == 1 or not apart[within].all():
        return [rows]
    return [rows[part == number] for number in range(count)]


def _roles(tracer: Tracer, places: Places) -> list[Role]:
    consumed, produced = np.zeros((2, tracer.axes.count), bool)
    for marks, vectors in ((consumed, tracer.consumed), (produced, tracer.produced)):
        for ids in vectors:
            marks[ids] = True
    first = places.ids[places.starts[:-1]] if len(places.blocks) else places.ids
    roles: list[Role] = []
    for (name, _), ids in zip(places.blocks, first, strict=True):
        if name in tracer.buffers:
            roles.append("stat")
        elif produced[ids]:
            roles.append("out")
        else:
            roles.append("in" if consumed[ids] else "affine")
    return roles


def _names(
    positions: list[np.ndarray], places: Places, block_of: np.ndarray, roles: list[Role]
) -> list[str]:
    """Module path of the first tensor that produces the units; the units' width tells crossing
    groups of one tensor apart (``attn.qkv/64`` are heads of 64 rows)."""
    stems, widths = [], []
    for index in positions:
        blocks = block_of[index[0]]
        producing = [b for b in blocks if roles[b] == "out"] or list(blocks)
        block = producing[0]
        stems.append(places.blocks[block][0].removesuffix(".weight"))
        widths.append(int((blocks == block).sum()))
    names: list[str] = []
    for stem, width in zip(stems, widths, strict=True):
        name = stem if stems.count(stem) == 1 else f"{stem}/{width}"
        number, unique = 1, name
        while unique in names:
            number += 1
            unique = f"{name}~{number}"
        names.append(unique)
    return names


def _frozen(
    tracer: Tracer, solution: Solution, places: Places, covered: np.ndarray
) -> tuple[Frozen, ...]:
    """Every position no group covers, with the operation that held it."""
    soft = labels_of(tracer.axes.count, [(a, b) for a, b, _ in solution.pairs])
    first_pin = np.full(int(soft.max(initial=0)) + 1, -1)
    for number in reversed(range(len(solution.pins))):
        first_pin[soft[solution.pins[number].ids]] = number
    positions = np.flatnonzero(~covered)
    ids = places.ids[positions]
    pins = first_pin[soft[ids]]
    labels = np.where(pins < 0, solution.labels[ids], -1)
    blocks = np.asarray(places.block_of)[positions]
    # One number for each combination: rows of three would be sorted far more slowly.
    sizes = (len(places.blocks), len(solution.pins) + 1, int(labels.max(initial=0)) + 2)
    held = np.ravel_multi_index((blocks, pins + 1, labels + 1), sizes)
    _, first, counts = np.unique(held, return_index=True, return_counts=True)
    result: dict[Frozen, int] = {}
    for number in np.argsort(first):
        place = first[number]
        pin, label = int(pins[place]), int(labels[place])
        tensor, dim = places.blocks[blocks[place]]
        used = tensor in tracer.used
        origin, reason = _held_by(solution, pin, label, used)
        if reason == KERNEL:
            continue
        node = tracer.origins[origin] if origin >= 0 else None
        where = ("", "", "")
        if node is not None:
            where = (str(node.target), source_line(node), module_path(node) or "")
        bare = Frozen(tensor, dim, 0, where[0], where[1], reason, where[2], remedy_for(reason))
        result[bare] = result.get(bare, 0) + int(counts[number])
    return tuple(replace(bare, indices=count) for bare, count in result.items())


def _held_by(solution: Solution, pin: int, label: int, used: bool) -> tuple[int, str]:
    """Origin and reason: of the first pin, else of what the class of the index says."""
    if pin >= 0:
        return (solution.pins[pin].origin if used else -1), solution.pins[pin].reason
    if not used:
        return -1, "forward does not use it"
    if label in solution.refused:
        return solution.refused[label], "a reshape cuts across what would leave"
    if label == solution.frozen:
        return -1, "it meets the input or the output of the model"
    return -1, "it is the only unit: nothing would be left"
