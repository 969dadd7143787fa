"""An agent that sets one parameter after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from secateur.searching import Discrete, Point, Problem, algorithm

HIDDEN = 64  # of the published 300: there are fewer parameters and far fewer trials
WARM, WARMEST = 0.25, 100  # share of the trials that are random, and how many at most
SPREAD, DECAY = 0.25, 0.98  # of the noise on actions after them, and what a trial leaves of it
BATCH, STEPS = 64, 2  # of transitions in an update; updates for each parameter of a trial
ACTOR_RATE, CRITIC_RATE = 1e-3, 3e-3
WIDEN = 1.3  # of the noise, for each time that a trial in a row was known already
MEMORY = 20  # rewards are compared with the last so many


@algorithm("amc")
class Amc:
    """The seeds, then points that an agent sets parameter by parameter; it learns by DDPG.

    What the agent sees of a parameter: its number, how many values it has, what the table says of
    its middle and its last value, what was set before it. The reward is that of the whole trial,
    beside the last ones; the first quarter of the trials is random. It learns from points as they
    were repaired, and its critic from whole trials, undiscounted: a chain of estimates from step
    to step would take more trials than there are. AMC: He et al., 2018; DDPG: Lillicrap et al.,
    2016.
    """

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        problem.refuse_several("amc")
        self._space, self._waiting = problem.space, list(problem.seeds)
        self._generator = np.random.default_rng(seed)
        self._fixed = _features(problem)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            seen = self._fixed.shape[1] + 2
            self._actor, self._critic = _net(seen, sigmoid=True), _net(seen + 1, sigmoid=False)
        self._optimizers = (
            torch.optim.Adam(self._actor.parameters(), ACTOR_RATE),
            torch.optim.Adam(self._critic.parameters(), CRITIC_RATE),
        )
        self._random = min(WARMEST, math.ceil(WARM * trials))
        self._told, self._again = 0, 0
        self._known: set[Point] = set()
        self._values: list[float] = []
        count = len(problem.space.parameters)
        self._states = torch.zeros(0, count, seen)  # of every trial that it learns from
        self._actions, self._rewards = torch.zeros(0, count, 1), torch.zeros(0)

    def ask(self) -> Point | None:
        """A seed, a random point, or what the agent sets."""
        if self._waiting:
            return self._waiting.pop(0)
        count = len(self._space.parameters)
        if self._told < self._random:
            return self._space.decode(self._generator.random(count))
        spread = SPREAD * DECAY ** (self._told - self._random) * WIDEN**self._again
        places: list[float] = []
        for number in range(count):
            with torch.no_grad():
                mean = float(self._actor(self._state(number, places)))
            places.append(self._noisy(mean, spread))
        return self._space.decode(places)

    def _noisy(self, mean: float, spread: float) -> float:
        """Of a normal distribution cut to [0, 1]; its mean where no draw falls inside."""
        drawn = mean + spread * self._generator.standard_normal(16)
        inside = drawn[(drawn >= 0) & (drawn < 1)]
        return float(inside[0]) if len(inside) else min(max(mean, 0.0), 1.0)

    def _state(self, number: int, before: Sequence[float]) -> Tensor:
        """float32 [features]: of the parameter, and of the places set before it."""
        set_before = [before[-1], float(np.mean(before))] if before else [0.5, 0.5]
        return torch.cat([self._fixed[number], torch.tensor(set_before, dtype=torch.float32)])

    def tell(self, point: Point, values: Sequence[float]) -> None:
        """Learn from a trial."""
        (value,) = values
        if point in self._known:  # costs no trial: it would only ask the same again
            self._again += 1
            return
        self._known.add(point)
        self._told, self._again = self._told + 1, 0
        known = [v for v in self._values[-MEMORY:] if math.isfinite(v)]
        self._values.append(value)
        if len(known) < 2:
            return
        spread = max(float(np.std(known)), 1e-12)
        reward = (float(np.mean(known)) - value) / spread if math.isfinite(value) else -2.0
        places = self._space.encode(point).tolist()
        states = torch.stack([self._state(n, places[:n]) for n in range(len(places))])
        actions = torch.tensor(places, dtype=torch.float32)[:, None]
        self._states = torch.cat([self._states, states[None]])
        self._actions = torch.cat([self._actions, actions[None]])
        self._rewards = torch.cat([self._rewards, torch.tensor([float(np.clip(reward, -2, 2))])])
        for _ in range(STEPS * len(places)):
            self._learn()

    def _learn(self) -> None:
        """One update of the critic, then of the actor."""
        count = len(self._space.parameters)
        trials = torch.from_numpy(self._generator.integers(len(self._states), size=BATCH))
        steps = torch.from_numpy(self._generator.integers(count, size=BATCH))
        states, actions = self._states[trials, steps], self._actions[trials, steps]
        goals = self._rewards[trials]
        self._step(1, (self._judged(states, actions) - goals).square().mean())
        self._step(0, -self._judged(states, self._actor(states)).mean())

    def _judged(self, states: Tensor, actions: Tensor) -> Tensor:
        return self._critic(torch.cat([states, actions], 1))[:, 0]

    def _step(self, which: int, loss: Tensor) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        self._optimizers[which].step()


def _features(problem: Problem) -> Tensor:
    """float32 [parameters, 4]: what is known of each parameter beforehand, from 0 to 1."""
    table, parameters = problem.table or {}, problem.space.parameters
    rows = []
    for number, parameter in enumerate(parameters):
        losses = table.get(parameter.name, (0.0,))
        levels = len(parameter.values) if isinstance(parameter, Discrete) else 100
        rows.append([
            number / len(parameters), min(levels, 100) / 100, losses[len(losses) // 2], losses[-1],
        ])  # fmt: skip
    found = torch.tensor(rows, dtype=torch.float32)
    found[:, 2:] /= found[:, 2:].abs().max().clamp_min(1e-12)
    return found


def _net(inputs: int, sigmoid: bool) -> nn.Sequential:
    layers = [
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, 1),
    ]  # fmt: skip
    return nn.Sequential(*layers, *([nn.Sigmoid()] if sigmoid else []))
