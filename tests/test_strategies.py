"""Searches over recipes: spaces, objectives and constraints, the ladder, and whole searches."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import secateur as sc
from command_cases import NET, secateur, write_recipe
from secateur.config import TrainingSection, read_recipe
from secateur.errors import InputError
from secateur.job import steps
from secateur.job.strategy_cuts import KEPT, Cuts
from secateur.job.strategy_goals import read_goals
from secateur.job.strategy_ladder import Ladder, Outcome, rungs
from secateur.job.strategy_space import strategies
from secateur.job.strategy_trials import Trials
from secateur.metrics import METRICS, evaluate
from secateur.metrics._samples import of_samples
from secateur.searching import ALGORITHMS

SPACE = {
    "target.flops": {"low": 0.2, "high": 0.9},
    "pruning.criterion": ["obs", "l2"],
    "pruning.steps": [1, 2, 4],
    "between.epochs": {"values": [0, 1], "when": {"pruning.steps": [2, 4]}},
    "pruning.layers.features.0": ["keep", 0.5],
    "finetune.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
}


def recipe_of(space=SPACE, **changes):
    search = {"space": space, **changes.pop("search", {})}
    return read_recipe({"model": "net.py:build", "data": "digits", "search": search, **changes})


def test_any_key_of_a_recipe_is_a_parameter():
    found = strategies(recipe_of(), {})
    assert found.space.names[-1] == "between.epochs"  # after what it depends on
    point = found.space.decode([0.5, 0.9, 0.5, 0.9, 0.5, 0.9])
    overrides = found.overrides(point)
    recipe = found.recipe(point)
    assert recipe.target.flops == f"{overrides['target.flops']}x"
    assert recipe.pruning.criterion == "l2" and recipe.pruning.scope == "global"
    assert recipe.pruning.steps == 2 and recipe.between.epochs == 1
    assert recipe.pruning.layers == {"features.0": 0.5}
    assert math.isclose(recipe.finetune.learning_rate, 0.01)
    assert recipe.search is None
    obs = found.recipe(found.space.decode([0.5, 0.1, 0.1, 0.1, 0.5, 0.9]))
    assert obs.pruning.scope == "knapsack" and obs.pruning.compensate  # open: by the criterion
    assert obs.pruning.layers == {"features.0": "keep"}
    assert "between.epochs" not in found.overrides(found.space.decode([0.5] * 2 + [0.1] * 4))


def test_a_parameter_may_stand_for_several_keys():
    space = {"way": {"sets": {
        "plain": {"pruning.criterion": "l1"},
        "wide": {"pruning.criterion": "l2", "pruning.scope": "uniform", "pruning.round_to": 4},
    }}}  # fmt: skip
    found = strategies(recipe_of(space), {})
    plain, wide = (found.recipe((name,)).pruning for name in ("plain", "wide"))
    assert (plain.criterion, plain.scope, plain.round_to) == ("l1", "global", 1)
    assert (wide.criterion, wide.scope, wide.round_to) == ("l2", "uniform", 4)
    with pytest.raises(InputError, match=r"way cannot be 'odd'.*round_to"):
        strategies(recipe_of({"way": {"sets": {"odd": {"pruning.round_to": 0}}}}), {})
    with pytest.raises(InputError, match="a mapping of keys for each value"):
        strategies(recipe_of({"way": {"sets": ["plain"]}}), {})


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"pruning.criterium": ["l1"]}, "did you mean 'criterion'"),
        ({"pruning.steps": [1, 0]}, r"pruning.steps cannot be 0"),
        ({"prunning.steps": [1]}, "did you mean 'pruning'"),
        ({"finetune.learning_rate": {"low": 1}}, "a list of values, or low and high"),
        ({"finetune.learning_rate": {"low": "a", "high": 2}}, "wants numbers"),
        ({"finetune.learning_rate": {"lo": 1, "high": 2}}, "no key 'lo'"),
        ({"finetune.learning_rate": {"low": 2, "high": 1}}, "low < high"),
        ({"pruning.steps": []}, "values that are all different"),
        ({"pruning.steps": {"values": [1], "when": ["x"]}}, "one other key"),
        ({"pruning.steps": {"values": [1], "when": {"x": [1]}}}, "does not come before"),
        (
            {
                "pruning.steps": {"values": [1, 2], "when": {"between.epochs": [1]}},
                "between.epochs": {"values": [0, 1], "when": {"pruning.steps": [2]}},
            },
            "in a circle: 'pruning.steps' on 'between.epochs' on 'pruning.steps'",
        ),
        (
            {
                "pruning.steps": [1, 2],
                "between.epochs": {"values": [1], "when": {"pruning.steps": [2, 3]}},
            },
            "wants 'pruning.steps' to be 3, and it is one of",
        ),
        (
            {
                "target.flops": {"low": 0.2, "high": 0.8},
                "between.epochs": {"values": [1], "when": {"target.flops": [0.5]}},
            },
            "never has the very values",
        ),
        (
            {
                "pruning.steps": [1, 2],
                "between.epochs": {"values": [1], "when": {"pruning.steps": []}},
            },
            "to be no value",
        ),
    ],
)
def test_spaces_that_no_recipe_fits_are_refused_before_any_work(space, said):
    with pytest.raises(InputError, match=said):
        strategies(recipe_of(space), {})


def test_goals_are_read_with_their_directions():
    goals = read_goals(
        ["accuracy", "flops", "max loss"], ["drop <= 1pt", "params<=0.5x", "f1 >= 0.9"], "accuracy"
    )
    measures = {"accuracy": 0.9, "flops": 10.0, "loss": 2.0, "f1": 0.8, "params": 60.0}
    assert [o.of(measures) for o in goals.objectives] == [-0.9, 10.0, -2.0]
    drop, params, f1 = goals.constraints
    assert math.isclose(drop.excess({"drop": 0.03}, {}), 2.0)
    assert math.isclose(params.excess(measures, {"params": 100.0}), 0.2)
    assert math.isclose(f1.excess(measures, {}), 1 / 9)
    assert goals.metrics == ("accuracy", "loss", "f1")
    assert list(goals.budgets) == ["params"]
    assert goals.drop(0.8, 0.9) == pytest.approx(0.1)


def test_the_dense_model_is_always_a_contestant():
    dense = {"accuracy": 0.9, "flops": 100.0, "drop": 0.0}
    cut = {"accuracy": 0.89, "flops": 50.0, "drop": 0.01}
    assert not read_goals(["accuracy"], ["drop <= 2pt"], "accuracy").better(cut, dense)
    assert read_goals(["accuracy"], ["flops <= 0.5x"], "accuracy").better(cut, dense)
    assert read_goals(["accuracy", "flops"], [], "accuracy").better(cut, dense)
    assert read_goals(["accuracy"], [], "accuracy").better({**cut, "accuracy": 0.91}, dense)


@pytest.mark.parametrize(
    ("objectives", "constraints", "said"),
    [
        (["acuracy"], [], "did you mean 'accuracy'"),
        (["most accuracy"], [], "is none"),
        (["loss", "min loss"], [], "twice"),
        ([], ["flops < 0.5x"], "is none"),
        ([], ["flops >= 0.5x"], "an upper limit"),
        ([], ["flops <= 2x"], "at most at 1x"),
        ([], ["flps <= 0.5x"], "did you mean 'flops'"),
        ([], ["accuracy >= much"], "wants a number"),
        ([], ["accuracy >= 0.9", "accuracy <= 0.8"], "cannot both hold"),
        ([], ["flops <= 0.5x", "flops <= 0.4x"], "limits 'flops' twice"),
    ],
)
def test_goals_that_make_no_sense_are_refused(objectives, constraints, said):
    with pytest.raises(InputError, match=said):
        read_goals(objectives, constraints, "accuracy")


def stood(*ranks, whole=False, left="", accuracy=0.0):
    return Outcome({"accuracy": accuracy}, tuple(ranks), whole, left)


def test_a_ladder_lets_the_best_third_go_on():
    before, went = [], []
    for number, value in enumerate((5.0, 6.0, 4.0, 4.5, 3.0, 7.0)):
        went.append(Ladder(1 / 3, before).goes_on(0, value))
        before.append((f"{number}", stood(value)))
    assert went == [True, False, True, True, True, False]
    assert all(Ladder(1.0, before).goes_on(0, value) for value in (1.0, 9.0))
    whole = TrainingSection(epochs=8)
    assert [t and t.epochs for t in rungs(whole)] == [None, 2, 8]
    assert [t and t.epochs for t in rungs(TrainingSection(epochs=3))] == [None, 3]
    assert rungs(None) == (None,)


def test_who_is_behind_the_one_to_beat_would_not_go_on():
    """By brute force: a worse rank than that of the one to beat is one that the ladder stops."""
    drawn = random.Random(0)
    for _ in range(200):
        ranks = [drawn.choice([0.1, 0.2, 0.3, 0.4, 0.5]) for _ in range(drawn.randrange(9))]
        ladder = Ladder(0.34, [(str(n), stood(rank)) for n, rank in enumerate(ranks)])
        name = ladder.to_beat(0, False, lambda outcome: True)
        first_to_stop = [r for r in sorted(ranks) if not ladder.goes_on(0, r + 0.01)]
        assert (None if name is None else ranks[int(name)]) == (first_to_stop or [None])[0]
    part = stood(1.0, left="left after 8 of 64 samples")  # it cannot be compared with in pairs
    ends = [("a", part), ("b", stood(2.0, whole=True)), ("c", stood(1.5, left="not among"))]
    assert Ladder(0.3, ends).to_beat(0, False, lambda outcome: True) == "c"
    assert Ladder(0.3, ends).to_beat(0, True, lambda outcome: outcome.whole) == "b"
    assert Ladder(0.3, ends).to_beat(1, False, lambda outcome: True) is None
    assert Ladder(0.3, ends).to_beat(0, True, lambda outcome: False) is None


@pytest.mark.parametrize("name", ["accuracy", "top5-accuracy", "loss", "mae", "mse"])
def test_values_of_samples_have_the_metric_as_their_mean(name):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(50, 7, generator=generator)
    targets: torch.Tensor = torch.randint(7, (50,), generator=generator)
    if name in ("mae", "mse"):
        targets = torch.randn(50, 7, generator=generator)
    found = of_samples(name, outputs, targets)
    assert found is not None and found.shape == (50,)
    identity = nn.Identity()
    assert float(found.mean()) == pytest.approx(
        evaluate(identity, [(outputs, targets)], name)[name], rel=1e-5
    )
    assert of_samples("f1", outputs, targets) is None
    pixels = torch.randint(7, (50, 3), generator=generator)
    assert of_samples("accuracy", torch.randn(50, 7, 3), pixels) is None


def test_what_breaks_a_constraint_is_told_as_worse_by_how_far():
    trials = object.__new__(Trials)
    trials.goals = read_goals(["accuracy"], ["drop <= 1pt"], "accuracy")
    trials.dense = {"accuracy": 0.9, "drop": 0.0}
    values = [trials.values({"accuracy": 0.9 - d, "drop": d})[0] for d in (0, 0.01, 0.02, 0.1)]
    assert values == sorted(values) and values[1] < 0 < values[2] < values[3]


class Counted(Dataset):
    """Counts what is read of it."""

    def __init__(self, samples):
        self.samples, self.reads = samples, 0

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.reads += 1
        return self.samples[index]


def samples(count, seed):
    """Bright squares, at one of four places."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (count,), generator=generator)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    for image, target in zip(images, targets.tolist(), strict=True):
        image[:, 4 * (target // 2) :, 4 * (target % 2) :][:, :4, :4] += 1
    return TensorDataset(images, targets)


@pytest.fixture(scope="module")
def net():
    place: dict = {}
    exec(NET, place)  # the tests' own net
    torch.manual_seed(0)
    model = place["build"](8, 4)
    train = samples(200, 0)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(train.tensors[0]), train.tensors[1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def test_a_candidate_that_is_behind_leaves_on_a_part_of_the_samples(net, tmp_path):
    """And what it missed is what an evaluation of all samples says of it."""
    val = samples(512, 1)
    found = sc.search(
        net, {"target.flops": [0.9, 0.06], "pruning.criterion": ["obs", "random"]}, "accuracy",
        train=samples(80, 0), val=val, epochs=0, budget=4, algorithm="grid",
        recipe={"latency": None}, folder=tmp_path / "run",
    )  # fmt: skip
    left = [trial for trial in found.trials if trial["left"]]
    assert 0 < len(left) < 4 and not any(trial["whole"] for trial in left)
    said = [re.fullmatch(r"left after (\d+) of 512 samples, untrained: (0.\d+) behind the best so "
                         r"far, at least (0.\d+)", trial["left"]) for trial in left]  # fmt: skip
    read = [int(match[1]) for match in said if match]
    assert len(read) == len(left) and {64} <= set(read) <= {64, 128, 256}
    assert found.result is not None
    told = found.result.metrics["search"]
    assert told["read"] == pytest.approx((512 * (4 - len(left)) + sum(read)) / 2048)
    assert "left after 64 of 512" in (tmp_path / "run" / "report.html").read_text()
    measured = {json.dumps(t["overrides"]): t["measures"]["accuracy"] for t in found.trials}
    for trial in left:
        overrides = trial["overrides"]
        one = sc.compress(
            net, samples(80, 0), val, target={"flops": overrides["target.flops"]}, epochs=0,
            criterion=overrides["pruning.criterion"],
            recipe={"latency": None, "pruning": {"refine": 0}},
        )  # fmt: skip
        whole = float((one.model(val.tensors[0]).argmax(1) == val.tensors[1]).float().mean())
        estimate = measured[json.dumps(overrides)]
        assert whole < measured[json.dumps(found.best)] and abs(whole - estimate) < 0.12


def test_recipes_that_differ_in_their_training_alone_are_pruned_once(net, tmp_path, monkeypatch):
    """And come to the same as those that share nothing."""
    counted: list[str] = []
    prune = steps.prune

    def counting(work, step):
        counted.append(work.recipe.pruning.criterion)
        return prune(work, step)

    monkeypatch.setattr(steps, "prune", counting)
    space = {"finetune.learning_rate": [0.01, 0.1], "pruning.criterion": ["l1", "random"]}

    def searched(name):
        return sc.search(
            net, space, "accuracy", train=samples(40, 0), val=samples(40, 1), epochs=1, budget=4,
            algorithm="grid", target={"flops": 0.5}, recipe={"latency": None},
            folder=tmp_path / name,
        )  # fmt: skip

    shared = searched("shared")
    assert Counter(counted[:-1]) == {"l1": 1, "random": 1}  # the last one is the final run's
    assert not list((tmp_path / "shared" / "search").glob("*cut-*"))
    counted.clear()
    monkeypatch.setattr(Cuts, "take", lambda self, recipe, place: False)
    alone = searched("alone")
    assert Counter(counted[:-1]) == {"l1": 2, "random": 2}
    told = [
        [(t["overrides"], t["measures"], t["whole"], t["left"]) for t in found.trials]
        for found in (shared, alone)
    ]
    assert told[0] == told[1] and len(told[0]) == 4


def test_cuts_make_room_and_come_whole(tmp_path):
    cuts, recipes = Cuts(tmp_path), [recipe_of(seed=seed) for seed in range(KEPT + 2)]
    made = tmp_path / "made"
    (made / "steps").mkdir(parents=True)
    for number, recipe in enumerate(recipes):
        (made / "steps" / "model").write_text(str(number))
        cuts.keep(recipe, made)
        assert cuts.take(recipes[0], tmp_path / "first")  # so that others make room
        shutil.rmtree(tmp_path / "first")
    assert len(list(tmp_path.glob("cut-*"))) == KEPT
    place = tmp_path / "place"
    place.mkdir()
    assert not cuts.take(recipes[1], place) and list(place.iterdir()) == []
    assert cuts.take(recipes[-1], place)
    assert (place / "steps" / "model").read_text() == str(KEPT + 1)
    other = recipes[-1].model_copy(update={"finetune": TrainingSection(epochs=3), "output": "x"})
    shutil.rmtree(place)
    assert cuts.take(other, place)
    cuts.clear()
    assert not list(tmp_path.glob("*cut-*"))


class Watching:
    """A listener that notes how much of the test split was read by the end of the search."""

    def __init__(self, test):
        self.test, self.before, self.read = test, 0, None

    def begin(self, stage, total=None):
        if stage == "trace":  # labels were checked by then
            self.before = self.test.reads

    def tick(self, stage, done, note=""): ...
    def say(self, text): ...
    def folder(self, path): ...
    def end(self, stage, note, reused=False):
        if stage == "search":
            self.read = self.test.reads - self.before


def test_a_search_in_one_call(net, tmp_path):
    """Several objectives, a function of the user's, and the test split untouched until the end."""

    def wrong(model, batches):
        pairs = [(model(x).argmax(1) != y).float().mean() for x, y in batches]
        return float(torch.stack(pairs).mean())

    wrong.higher_is_better = False
    test = Counted(samples(40, 2))
    watching = Watching(test)
    found = sc.search(
        net,
        {"target.flops": [0.3, 0.6], "pruning.criterion": ["obs", "l2", "random"]},
        [wrong, "flops", "memory"],
        train=samples(80, 0), val=samples(40, 1), test=test, epochs=0, budget=6,
        recipe={"latency": None}, folder=tmp_path / "run", listener=watching,
    )  # fmt: skip
    assert watching.read == 0 and test.reads > watching.before
    assert not any(trial["error"] for trial in found.trials)
    different = {json.dumps(trial["overrides"]) for trial in found.trials}
    assert 4 <= len(found.trials) == len(different) <= 6  # there are no more
    dense = sc.trace(net, torch.zeros(2, 1, 8, 8)).cost({}).flops
    for trial in found.trials:
        assert trial["measures"]["flops"] <= trial["overrides"]["target.flops"] * dense
        names = ("given:wrong", "flops", "memory")
        assert trial["values"] == [trial["measures"][name] for name in names]
    for trial in found.trials:  # on the front: no other is at least as good in all three
        values = trial["values"]
        beaten = any(
            other["values"] != values
            and all(a <= b for a, b in zip(other["values"], values, strict=True))
            for other in found.trials
        )
        assert (trial in found.front) == (not beaten)
    assert found.best in [trial["overrides"] for trial in found.front]
    # the best was carried out to its end: measured anew it is what the search said of it
    structure = sc.trace(found.model, torch.zeros(2, 1, 8, 8))
    measures = next(t["measures"] for t in found.trials if t["overrides"] == found.best)
    assert structure.cost({}).flops == measures["flops"]
    assert measures["bytes"] == (tmp_path / "run/model/model.safetensors").stat().st_size
    assert found.result is not None
    told = found.result.metrics
    assert told["search"]["dense"]["bytes"] == told["before"]["bytes"]
    assert found.hypervolume([1.0, float(dense), 1e9]) > 0
    assert not list((tmp_path / "run" / "search").glob("trial-*"))


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


QUICK = {"epochs": 0, "algorithm": "grid", "recipe": {"latency": None, "pruning": {"refine": 0}}}


def test_every_objective_function_is_one_of_its_own(net):
    """Also where another search had one of its name, and where two are called alike."""
    space = {"target.params": [0.3, 0.6]}
    given = {"train": samples(40, 0), "val": samples(20, 1), "budget": 2, **QUICK}

    def counted(sign):
        def score(model, batches):
            return sign * count(model)

        return score

    shares = [sc.search(net, space, counted(sign), **given).best for sign in (1.0, -1.0)]
    assert shares == [{"target.params": 0.6}, {"target.params": 0.3}]
    both = sc.search(net, space, [lambda m, b: count(m), lambda m, b: -2.0 * count(m)], **given)
    for trial in both.trials:
        measures = trial["measures"]
        assert measures["given:<lambda>"] == measures["params"]
        assert measures["given:<lambda>-2"] == -2 * measures["params"]
    once = counted(1.0)
    with pytest.raises(InputError, match="'given:score' twice"):
        sc.search(net, space, [once, once], **given)
    assert not [name for name in METRICS.names() if name.startswith("given:")]

    def makers():
        def make(problem, seed, trials):
            return ALGORITHMS.get("random")(problem, seed, trials)

        return make

    class Maker:
        __name__ = "make"

        def __call__(self, problem, seed, trials):
            return makers()(problem, seed, trials)

    for maker in (makers(), Maker()):  # of one name, and defined at two places
        assert sc.search(space={"x": [1]}, evaluate=lambda v: 1.0, algorithm=maker, budget=1).trials
    assert not [name for name in ALGORITHMS.names() if name.startswith("given-")]


def test_an_edited_file_is_read_anew(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for number, sign in enumerate((1, -1)):
        text = "def size(model, batches):\n    return sum(p.numel() for p in model.parameters())"
        (tmp_path / "own.py").write_text(f"{text} * {sign}  # {'edited' * number}\n")
        found.append(sc.search(
            net, {"target.params": [0.3, 0.6]}, "own.py:size", train=samples(40, 0),
            val=samples(20, 1), budget=2, **QUICK,
        ).best)  # fmt: skip
    assert found == [{"target.params": 0.6}, {"target.params": 0.3}]


def test_an_interrupted_search_goes_on_with_the_function_written_anew(net, tmp_path):
    calls = []

    def counted(last):
        def score(model, batches):
            calls.append(count(model))
            if len(calls) == last:
                raise KeyboardInterrupt
            return float(count(model))

        return score

    def searched(last):
        return sc.search(
            net, {"target.params": [0.3, 0.5, 0.7]}, counted(last), train=samples(40, 0),
            val=samples(20, 1), budget=3, folder=tmp_path / "run", **QUICK,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        searched(4)  # the dense model, two trials, and the one that is lost
    found = searched(0)
    assert len(calls) == 4 + 2  # the dense model again, and the third trial
    assert [t["measures"]["given:score"] for t in found.trials] == [
        t["measures"]["params"] for t in found.trials
    ]
    assert found.best == {"target.params": 0.7}


def test_fractions_and_counts_of_one_cost_are_compared(net):
    """What a trial keeps is the tighter of both, by counting."""
    given = {"train": samples(40, 0), "val": samples(20, 1), "budget": 4, **QUICK}
    dense, shares = count(net), {"low": 0.3, "high": 0.9}
    limit = int(0.5 * dense)
    by_share = sc.search(
        net, {"target.params": shares}, "loss", f"params <= {limit}", **given
    )  # fmt: skip
    assert len(by_share.trials) > 1
    for trial in by_share.trials:
        assert not trial["error"] and trial["overrides"]["target.params"] <= limit / dense
        most = min(limit, trial["overrides"]["target.params"] * dense)
        assert 0.8 * most < trial["measures"]["params"] <= most
    assert count(by_share.model) <= limit
    wide = {"low": 0.3 * dense, "high": 0.9 * dense}
    by_count = sc.search(net, {"target.params": wide}, "loss", "params <= 0.5x", **given)
    assert len(by_count.trials) > 1
    for trial in by_count.trials:
        assert not trial["error"] and trial["overrides"]["target.params"] <= 0.5 * dense
        assert trial["measures"]["params"] <= trial["overrides"]["target.params"]
    listed = sc.search(net, {"target.params": [0.3, 0.9]}, "params", f"params <= {limit}", **given)
    assert sorted(t["measures"]["params"] <= 0.3 * dense for t in listed.trials) == [False, True]
    assert all(t["measures"]["params"] <= limit for t in listed.trials)


def test_why_no_point_keeps_the_constraints_is_said(net):
    recipe = {"latency": None, "pruning": {"criterion": "filter-clustering", "compensate": False}}
    space = {"pruning.scope": ["threshold"], "pruning.threshold": [0.5, 0.7]}
    with pytest.raises(InputError, match=r"no point of .* keeps the constraints: .*threshold"):
        sc.search(
            net, space, "loss", "flops <= 0.5x", train=samples(40, 0), val=samples(20, 1),
            budget=2, epochs=0, algorithm="grid", recipe=recipe,
        )  # fmt: skip


def test_a_trial_that_overruns_its_time_is_a_failed_one(net, tmp_path, monkeypatch):
    """Whatever the user's code catches, and by whom it is called."""

    def swallows(values):
        ends = time.monotonic() + values["seconds"]
        while time.monotonic() < ends:
            try:
                time.sleep(0.01)
            except Exception:
                pass
            except BaseException:
                if values["kind"] == "some":
                    raise
        return 1.0

    space = {"seconds": [0.0, 0.6], "kind": ["some", "all"]}
    found = sc.search(space=space, evaluate=swallows, budget=4, algorithm="grid", timeout=0.25)
    errors = {tuple(t["overrides"].values()): t["error"] for t in found.trials}
    late = "it took more than 0.25 s"
    assert errors == {(0.0, "some"): "", (0.0, "all"): "", (0.6, "some"): late, (0.6, "all"): late}
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "def size(model, batches):\n"
        "    found = sum(p.numel() for p in model.parameters())\n"
        f"    if found < {0.4 * count(net)}:\n"
        "        time.sleep(60)\n"
        "    return found\n"
    )
    monkeypatch.chdir(tmp_path)
    by_name = sc.search(
        net, {"target.params": [0.3, 0.8]}, "slow.py:size", train=samples(40, 0),
        val=samples(20, 1), budget=2, timeout=6, **QUICK,
    )  # fmt: skip
    errors = {t["overrides"]["target.params"]: t["error"] for t in by_name.trials}
    assert errors == {0.3: "it took more than 6 s", 0.8: ""}


CHAIN = {  # written child first
    "c": {"values": [7, 8], "when": {"b": [2]}},
    "b": {"values": [2, 1], "when": {"a": ["v"]}},
    "a": ["u", "v"],
}


def test_what_hangs_on_an_inactive_parameter_is_inactive():
    """And neither the function nor the trials get it, by enumeration."""
    seen = []

    def evaluate(values):
        seen.append(dict(values))
        return 1.0

    found = sc.search(space=CHAIN, evaluate=evaluate, budget=12, algorithm="grid")
    wanted = [
        {"a": "u"}, {"a": "v", "b": 1}, {"a": "v", "b": 2, "c": 7}, {"a": "v", "b": 2, "c": 8}
    ]  # fmt: skip
    key = lambda values: json.dumps(values, sort_keys=True)  # noqa: E731
    assert sorted(seen, key=key) == sorted(wanted, key=key)
    assert [t["overrides"] for t in found.trials] == seen and found.best in seen
    space = {
        "between.epochs": {"values": [1, 2], "when": {"pruning.steps": [2]}},
        "pruning.steps": {"values": [2, 1], "when": {"pruning.criterion": ["obs"]}},
        "pruning.criterion": ["l2", "obs"],
    }
    recipes = strategies(recipe_of(space), {})
    assert recipes.space.names == ("pruning.criterion", "pruning.steps", "between.epochs")
    point = recipes.space.settled(("l2", 2, 2))
    assert recipes.overrides(point) == {"pruning.criterion": "l2"}
    assert recipes.recipe(point).between is None


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list, tuple])
def test_values_of_several_objectives_may_be_an_array(kind):
    found = sc.search(
        space={"x": [1.0, 2.0, 3.0]}, evaluate=lambda v: kind([v["x"], -v["x"]]), budget=3,
        objective=["one", "other"], algorithm="grid",
    )  # fmt: skip
    assert sorted(t["values"] for t in found.front) == [(1.0, -1.0), (2.0, -2.0), (3.0, -3.0)]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"budget": 2.5}, "budget is 2.5; give a whole number of trials"),
        ({"budget": 0}, "budget is 0"),
        ({"budget": True}, "budget is True"),
        ({"minutes": -1}, "minutes is -1; give a number above 0"),
        ({"minutes": math.nan}, "minutes is nan"),
        ({"timeout": 0}, "timeout is 0; give a number above 0"),
        ({"timeout": "3"}, "timeout is '3'"),
    ],
)
def test_limits_that_are_none_are_refused(limits, said):
    with pytest.raises(InputError, match=said):
        sc.search(space={"x": [1, 2]}, evaluate=lambda values: 1.0, **limits)


def test_an_objective_may_read_the_batches_twice_or_not_at_all(net):
    val = samples(20, 1)

    def centred(model, batches):
        mean = torch.cat([model(x) for x, _ in batches]).mean(0)
        return float(sum((model(x) - mean).square().sum() for x, _ in batches))

    found = sc.search(
        net, {"target.params": [0.6]}, [centred, lambda model, batches: 3.0],
        train=samples(40, 0), val=val, budget=1, **QUICK,
    )  # fmt: skip
    measures = found.trials[0]["measures"]
    with torch.no_grad():
        answers = found.model(val.tensors[0])
    spread = float((answers - answers.mean(0)).square().sum())
    assert measures["given:centred"] == pytest.approx(spread, rel=1e-3)
    assert measures["given:<lambda>"] == 3.0


def test_a_function_is_searched_by_the_same_engine():
    def evaluate(values):
        if values["rate"] > 3:
            raise ValueError("too large")
        return (values["rate"] - 1) ** 2 + (values["kind"] != "b")

    space = {"rate": {"low": 0.0, "high": 4.0}, "kind": ["a", "b"]}
    found = sc.search(space=space, evaluate=evaluate, budget=60)
    assert found.best["kind"] == "b" and abs(found.best["rate"] - 1) < 0.3
    assert {"", "ValueError: too large"} == {trial["error"] for trial in found.trials}
    with pytest.raises(InputError, match="there is no model"):
        _ = found.model

    def hangs(values):
        while values["kind"] == "a":
            pass
        return values["rate"]

    slow = sc.search(space=space, evaluate=hangs, budget=6, algorithm="random", timeout=0.3)
    errors = {trial["overrides"]["kind"]: trial["error"] for trial in slow.trials}
    assert errors == {"a": "it took more than 0.3 s", "b": ""}

    class Middle:
        """A user's own algorithm."""

        def __init__(self, problem, seed, trials):
            self.left = [problem.space.decode([at, 0.9]) for at in (0.2, 0.3)]

        def ask(self):
            return self.left.pop() if self.left else None

        def tell(self, point, values): ...

    own = sc.search(space=space, evaluate=evaluate, algorithm=Middle, budget=60)
    assert [trial["overrides"]["kind"] for trial in own.trials] == ["b", "b"]
    with pytest.raises(InputError, match="needs a space"):
        sc.search(evaluate=evaluate)
    with pytest.raises(InputError, match="needs a model"):
        sc.search(space=space)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    (folder / "own.py").write_text(
        "def nothing(model, batches):\n    return sum(0 for _ in batches) + float('nan')\n"
    )
    return folder


def recipe_in(place, name, search, **changes):
    base = {"train_dense": {"epochs": 6, "learning_rate": 0.1}, "pruning": {}}
    data = {"source": "digits", "limit": 400, "batch_size": 20}
    write_recipe(place, name, **{**base, "data": data, "search": search, **changes})


CLI_SPACE = {"pruning.criterion": ["obs", "l2", "random"], "finetune.learning_rate": [0.001, 0.03]}


def test_a_search_of_recipes_by_the_command_line(place):
    search = {"space": CLI_SPACE, "trials": 6, "constraints": ["flops <= 0.4x", "drop <= 90pt"]}
    recipe_in(place, "whole.yaml", search, target={}, finetune={"epochs": 4})
    done = secateur(place, "search", "whole.yaml", "--output", "whole", "--json")
    assert done.returncode in (0, 3), done.stderr
    metrics = json.loads((place / "whole" / "metrics.json").read_text())
    told = metrics["search"]
    assert told["algorithm"] == "tpe" and len(told["trials"]) == 6
    assert metrics["after"]["flops"] <= 0.4 * metrics["before"]["flops"]
    assert (
        metrics["recipe"]["pruning"]["criterion"]
        == (told["trials"][told["taken"]]["overrides"]["pruning.criterion"])
    )
    assert "What was tried" in (place / "whole" / "report.html").read_text()
    kept = [t for t in told["trials"] if t["kept"]]
    assert kept and all(t["whole"] for t in kept)
    assert any(not t["whole"] for t in told["trials"])  # the ladder stopped some
    assert told["trials"][told["taken"]]["measures"]["accuracy"] == max(
        t["measures"]["accuracy"] for t in kept
    )
    # As if it had been killed while the fourth trial was written: the same trials come again.
    cut = place / "whole"
    ledger = cut / "search" / "trials.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:3]) + lines[3][:30])
    for name in ("metrics.json", "journal.jsonl"):
        (cut / name).unlink()
    again = secateur(place, "resume", "whole", "--json")
    assert again.returncode == done.returncode, again.stderr
    second = json.loads((cut / "metrics.json").read_text())
    strip = lambda told: [{k: v for k, v in t.items() if k != "seconds"} for t in told["trials"]]  # noqa: E731
    assert strip(second["search"]) == strip(told)
    assert second["after"]["metric"] == metrics["after"]["metric"]
    assert ledger.read_text().splitlines()[:3] == [line.rstrip("\n") for line in lines[:3]]


def test_limits_are_fractions_of_the_first_dense_model(place):
    """A wider net, trained anew, is held to half of what the recipe's own net costs."""
    search = {
        "space": {"model_args.width": [6, 9], "target.flops": [0.3, 0.8]}, "trials": 4,
        "objective": ["max flops", "max accuracy"],  # so that the wide net is taken
        "constraints": ["flops <= 0.5x", "memory <= 1x"],
        "algorithm": "grid",
    }  # fmt: skip
    recipe_in(place, "sizes.yaml", search, target={}, model_args={"width": 6})
    done = secateur(place, "search", "sizes.yaml", "--output", "sizes", "--json")
    assert done.returncode in (0, 3), done.stderr
    metrics = json.loads((place / "sizes" / "metrics.json").read_text())
    told = metrics["search"]
    taken = told["trials"][told["taken"]]
    assert taken["measures"]["flops"] == metrics["after"]["flops"]
    first = told["dense"]["flops"]
    assert len(told["trials"]) == 4 and not any(t["error"] for t in told["trials"])
    for trial in told["trials"]:
        share = min(0.5, trial["overrides"]["target.flops"])
        assert trial["measures"]["flops"] <= share * first
        assert trial["kept"] == (trial["measures"]["memory"] <= told["dense"]["memory"])
    shares = {t["measures"]["flops"] / first for t in told["trials"]}
    assert max(shares) > 0.35  # the limit is used, and not counted from each net's own


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"objective": ["acuracy"]}, "did you mean 'accuracy'"),
        ({"constraints": ["flops <= 0.5x", "flops <= 0.4x"]}, "twice"),
        ({"space": {"pruning.criterion": ["l3"]}}, "unknown criterion"),
        ({"objective": ["own.py:missing"]}, "missing"),
        ({"constraints": ["drop <= 0pt", "flops <= 0.05x"]}, "nearest one breaks drop"),
        ({"objective": ["own.py:nothing"]}, "the value is nan"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(place, search, said):
    recipe_in(place, "bad.yaml", {"space": CLI_SPACE, "trials": 2, **search}, finetune=None)
    done = secateur(place, "search", "bad.yaml", "--output", f"bad-{abs(hash(said))}")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert said in done.stderr, done.stderr
