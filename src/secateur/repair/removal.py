"""What removing inputs of a linear map costs, and the weights that make up for it.

A consumer Y = W X reads the units that may leave. With H = X X^T / N + damping, removing the
columns P and solving the others anew

    costs        tr(W_P [(H^-1)_PP]^-1 W_P^T)
    changes W by -W_P [(H^-1)_PP]^-1 (H^-1)_P:
    leaves       H^-1 - (H^-1)_:P [(H^-1)_PP]^-1 (H^-1)_P:  for those that stay

(optimal brain surgeon, Hassibi and Stork 1993; for structures ZipLM, Kurtic et al. 2023, and
OSSCAR, Meng et al. 2024). Everything in float64. A unit may be a single weight's input, the taps
of a channel, the columns of a head: ``columns`` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg

ROUNDING = 1e-12  # of the energy: solving anew says no more
DAMPING = 1e-3  # of the mean of the diagonal of H
REFRESHES = 8  # how often a trace solves from scratch: downdates of an ill-conditioned H drift


@dataclass(frozen=True, eq=False)
class Consumer:
    """A linear map that reads a group, and the second moment of what it reads.

    weight:  float64 [outputs, inputs]; columns of inputs that are always zero are zero.
    hessian: float64 [inputs, inputs], damped.
    columns: int [units, k]; which inputs each unit feeds. Inputs of no unit always stay.
    """

    weight: np.ndarray
    hessian: np.ndarray
    columns: np.ndarray

    @cached_property
    def read(self) -> np.ndarray:
        """W H: float64 [outputs, inputs]."""
        return self.weight @ self.hessian

    @cached_property
    def energy(self) -> float:
        """tr(W H W^T): the cost of removing every input."""
        return float(np.vdot(self.read, self.weight))


@dataclass(frozen=True, eq=False)
class Trace:
    """Units in the order in which they leave, and the error of every level.

    order:  int [units].
    errors: float64 [units + 1]; errors[n] is the cost after the first n have left, all consumers
            together and each solved anew.
    """

    order: np.ndarray
    errors: np.ndarray


def consumer(
    weight: np.ndarray, moment: np.ndarray, columns: np.ndarray, damping: float = DAMPING
) -> Consumer:
    """A consumer from the plain second moment X X^T / N [inputs, inputs] of its inputs.

    Errors: ValueError for a moment that is not finite.
    """
    if not np.isfinite(moment).all():
        raise ValueError("the inputs of a layer are not finite on the calibration data")
    hessian = (moment + moment.T) / 2
    diagonal = np.diagonal(hessian)
    dead = diagonal <= 0
    mean = float(diagonal[~dead].mean()) if not dead.all() else 1.0
    hessian = hessian + np.diag(np.where(dead, mean, damping * mean))
    return Consumer(np.where(dead, 0.0, weight), hessian, columns)


def inverted(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix, symmetric as well.

    Where it is singular to working precision, the diagonal is raised by powers of ten until it
    is not.
    """
    if not len(matrix):
        return np.zeros((0, 0))
    factorise, invert = linalg.get_lapack_funcs(("potrf", "potri"), dtype=np.float64)
    raised = 0.0
    scale = float(np.abs(np.diagonal(matrix)).mean()) or 1.0
    while True:
        raw = np.array(matrix, np.float64, order="F")
        raw[np.diag_indices_from(raw)] += raised
        factor, failed = factorise(raw, lower=1, clean=1, overwrite_a=1)
        if failed:
            raised = max(10 * raised, 1e-12 * scale)
            continue
        half, _ = invert(factor, lower=1, overwrite_c=1)
        return half + np.tril(half, -1).T


def removal_error(weight: np.ndarray, inverse: np.ndarray, columns: np.ndarray) -> float:
    """The cost of removing these inputs [n] with the others solved anew."""
    removed = weight[:, columns]
    return float(np.vdot(linalg.solve(inverse[np.ix_(columns, columns)], removed.T).T, removed))


def removal_update(weight: np.ndarray, inverse: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The change of the weight [outputs, inputs] that makes up for it; -W at the columns."""
    block = inverse[np.ix_(columns, columns)]
    update = -weight[:, columns] @ linalg.solve(block, inverse[columns])
    update[:, columns] = -weight[:, columns]
    return update


def downdated(inverse: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The inverse for the inputs that stay; zero at those that left."""
    block = inverse[np.ix_(columns, columns)]
    rest = inverse - inverse[:, columns] @ linalg.solve(block, inverse[columns])
    rest[columns], rest[:, columns] = 0.0, 0.0
    return (rest + rest.T) / 2


def refitted(weight: np.ndarray, hessian: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The best weight [outputs, kept] on the kept inputs alone: W H_:S (H_SS)^-1."""
    inverse = inverted(hessian[np.ix_(kept, kept)])
    return weight @ hessian[:, kept] @ inverse


def trace(
    consumers: Sequence[Consumer],
    batch: int = 1,
    extra: np.ndarray | None = None,
    first: np.ndarray | None = None,
) -> Trace:
    """Remove the cheapest units one after the other until none is left.

    consumers: all that read the group; their columns are by the same units. batch: how many
    leave at a time, for large groups; the errors in between are those of leaving evenly.
    extra: float64 [units], what each costs besides; without consumers, all that they cost.
    first: int [n], units that have left already: they come first and their error is 0.
    """
    first = np.empty(0, np.int64) if first is None else np.asarray(first, np.int64)
    units = len(extra) if extra is not None else len(consumers[0].columns)
    extra = np.zeros(units) if extra is None else extra
    alive = np.setdiff1d(np.arange(units), first)
    states = [_State.of(c, alive) for c in consumers]
    lost = float(sum(state.error for state in states))
    rounding = ROUNDING * sum(c.energy for c in consumers)
    refresh = max(1, units // REFRESHES)
    order: list[int] = first.tolist()
    errors = [0.0] * (len(first) + 1)
    paid, since = 0.0, 0
    while len(alive):
        costs = np.sum([extra[alive], *(state.costs() for state in states)], axis=0)
        chosen = np.argsort(costs, kind="stable")[: min(batch, len(alive))]
        before = errors[-1]
        more = float(extra[alive[chosen]].sum())
        paid += more
        joint = more + float(sum(state.remove(chosen) for state in states))
        steps = np.cumsum(costs[chosen])
        share = steps / steps[-1] if steps[-1] > 0 else np.ones(len(chosen))
        errors += (before + max(joint, 0.0) * share).tolist()
        order += alive[chosen].tolist()
        alive = np.delete(alive, chosen)
        since += len(chosen)
        if len(alive) and (since >= refresh or not all(state.sound for state in states)):
            states = [_State.of(c, alive) for c in consumers]
            solved = float(sum(s.error for s in states)) - lost
            errors[-1] = solved + paid if solved + paid > before + rounding else before
            since = 0
    return Trace(np.array(order, np.int64), np.maximum.accumulate(errors))


@dataclass(eq=False)
class _State:
    """A consumer on the way: what is left of it, by positions among the inputs that stayed.

    gram: W^T W of the weight solved anew; all that the costs need of it.
    error: what has been lost when the state was made.
    """

    inverse: np.ndarray
    gram: np.ndarray
    columns: np.ndarray
    error: float

    @staticmethod
    def of(full: Consumer, alive: np.ndarray) -> _State:
        inputs = len(full.hessian)
        stays = np.ones(inputs, bool)
        stays[full.columns] = False
        stays[full.columns[alive]] = True
        kept = np.flatnonzero(stays)
        inverse = inverted(full.hessian[np.ix_(kept, kept)])
        read = full.read[:, kept]
        weight = read @ inverse
        place = np.cumsum(stays) - 1
        error = full.energy - float(np.vdot(weight, read))
        return _State(inverse, weight.T @ weight, place[full.columns[alive]], max(error, 0.0))

    @property
    def sound(self) -> bool:
        """Whether rounding has not made the inverse indefinite."""
        left = np.diagonal(self.inverse)[self.columns.reshape(-1)]
        return bool((left > 0).all())

    def costs(self) -> np.ndarray:
        """float64 [units left]: the cost of each by itself."""
        rows, columns = self.columns[:, :, None], self.columns[:, None, :]
        blocks, grams = self.inverse[rows, columns], self.gram[rows, columns]
        return np.trace(np.linalg.solve(blocks, grams), axis1=1, axis2=2)

    def remove(self, chosen: np.ndarray) -> float:
        """Let units go; returns their cost together."""
        gone = self.columns[chosen].reshape(-1)
        stays = np.ones(len(self.inverse), bool)
        stays[gone] = False
        block, corner = self.inverse[np.ix_(gone, gone)], self.gram[np.ix_(gone, gone)]
        cost = float(np.trace(linalg.solve(block, corner)))
        spread = linalg.solve(block, self.inverse[np.ix_(gone, stays)])
        half = self.gram[np.ix_(gone, stays)] - 0.5 * corner @ spread
        self.inverse = self.inverse[np.ix_(stays, stays)]
        self.inverse -= spread.T @ (block @ spread)
        self.gram = self.gram[np.ix_(stays, stays)]
        change = spread.T @ half
        self.gram -= change
        self.gram -= change.T
        self.columns = (np.cumsum(stays) - 1)[np.delete(self.columns, chosen, axis=0)]
        return cost


def exchanged(
    consumers: Sequence[Consumer], gone: np.ndarray, tries: int = 32
) -> tuple[np.ndarray, float]:
    """Swap a unit that left with one that stayed as long as the error falls.

    gone: int [n], the units that left. tries: how many swaps are tried in all; each solves every
    consumer once. Returns the units and their error (the local search of OSSCAR).
    """
    units = len(consumers[0].columns)
    gone = np.array(gone)
    error = _error(consumers, gone)
    while 0 < len(gone) < units:
        gains = np.sum([_gains(c, gone) for c in consumers], axis=0)
        for back in np.argsort(-gains, kind="stable"):
            if tries <= 0:
                return gone, error
            tries -= 1
            fewer = np.delete(gone, back)
            alive = np.setdiff1d(np.arange(units), fewer)
            states = [_State.of(c, alive) for c in consumers]
            costs = np.sum([state.costs() for state in states], axis=0)
            costs[alive == gone[back]] = np.inf
            leaves = int(np.argmin(costs))
            found = float(sum(state.error for state in states) + costs[leaves])
            if found < error * (1 - 1e-9):
                gone, error = np.append(fewer, alive[leaves]), found
                break
        else:
            break
    return gone, error


def _error(consumers: Sequence[Consumer], gone: np.ndarray) -> float:
    alive = np.setdiff1d(np.arange(len(consumers[0].columns)), gone)
    return float(sum(_State.of(c, alive).error for c in consumers))


def _gains(full: Consumer, gone: np.ndarray) -> np.ndarray:
    """float64 [gone]: by how much the error falls when one of them comes back."""
    columns = full.columns[gone]
    out = columns.reshape(-1)
    kept = np.setdiff1d(np.arange(len(full.hessian)), out)
    between = full.hessian[np.ix_(kept, out)]
    solved = inverted(full.hessian[np.ix_(kept, kept)]) @ between
    rest = full.hessian[np.ix_(out, out)] - between.T @ solved
    read = full.weight @ full.hessian
    missing = read[:, out] - read[:, kept] @ solved
    count, k = columns.shape
    at = np.arange(count * k).reshape(count, k)
    blocks = rest[at[:, :, None], at[:, None, :]]
    wanted = (missing.T @ missing)[at[:, :, None], at[:, None, :]]
    return np.trace(np.linalg.solve(blocks, wanted), axis1=1, axis2=2)
