"""``Pruner``: in a loop of one's own it does what secateur's loop does, and it resumes."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional

import secateur as sc
from method_cases import settings_of, structure_of_small_net
from secateur.during.gradual import Gradual
from secateur.during.rigl import RigL
from secateur.regularisers.l0 import L0
from secateur.regularisers.l1 import L1
from secateur.regularisers.l2 import L2
from secateur.regularisers.slimming import Slimming
from secateur.training.loading import batches
from secateur.training.loop import finetune
from secateur.training.optimizers import make_optimizer
from secateur.training.state import model_tensors
from training_cases import assert_equal, blobs, small_net

IMAGES = blobs(4).tensors[0]


def quiet_net() -> nn.Sequential:
    """Without dropout, whose numbers a loop by hand draws from elsewhere."""
    net = small_net()
    net[3].p = 0.0
    return net


def loop(pruner: sc.Pruner, optimizer, epochs: range, data=None, stop: int | None = None) -> None:
    """A loop as people write it."""
    done = 0
    for epoch in epochs:
        for inputs, targets in batches(data or blobs(96), 16, seed=0, epoch=epoch):
            if done == stop:
                return
            pruner.model.train()
            optimizer.zero_grad()
            functional.cross_entropy(pruner.model(inputs), targets).backward()
            optimizer.step()
            pruner.step()
            done += 1


CASES = {
    "gradual": ({"during": {"method": "gradual", "zeros": 0.7, "every": 2}},
                Gradual(zeros=0.7, every=2)),
    "rigl": ({"during": {"method": "rigl", "zeros": 0.7, "every": 2}}, RigL(zeros=0.7, every=2)),
    "l1": ({"regularise": {"l1": {"weight": 0.05}}}, L1(0.05)),
    "l2": ({"regularise": {"l2": {"weight": 0.05}}}, L2(0.05)),
    "slimming": ({"regularise": {"slimming": {"weight": 0.05, "remove": 0.4}}},
                 Slimming(0.05, 0.4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_does_what_the_loop_of_secateur_does(name):
    recipe, method = CASES[name]
    ours, theirs = quiet_net(), quiet_net()
    settings = settings_of(
        3, schedule="constant", weight_decay=0.0, keep_best=False, checkpoint_every=None
    )  # fmt: skip
    history = finetune(
        ours, blobs(96), settings, methods=[method], structure=structure_of_small_net()
    )  # fmt: skip
    optimizer = make_optimizer(theirs, "sgd", 0.05, 0.9)
    pruner = sc.Pruner(theirs, {"updates": 18, "epochs": 3, **recipe}, IMAGES, optimizer)
    loop(pruner, optimizer, range(3))
    if not history.remove:
        assert pruner.finish() is theirs
        assert_equal(ours, theirs)
        assert pruner.masks.keys() == history.masks.keys()
        assert all(torch.equal(mask, history.masks[n]) for n, mask in pruner.masks.items())
        return
    pruned = pruner.finish()
    assert pruner.plan is not None and dict(pruner.plan.remove) == dict(history.remove)
    with torch.no_grad():
        torch.testing.assert_close(
            pruned.eval()(IMAGES), ours.eval()(IMAGES), rtol=1e-4, atol=1e-5
        )  # fmt: skip


@pytest.mark.parametrize("name", [*CASES, "cuts"])
def test_it_goes_on_from_its_state(name):
    recipe = CASES[name][0] if name in CASES else {"flops": "0.4x", "steps": 3, "until": 1.0}
    recipe = {"updates": 18, "epochs": 3, **recipe}

    def made() -> tuple[sc.Pruner, torch.optim.Optimizer]:
        net = quiet_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        return sc.Pruner(net, recipe, IMAGES, optimizer), optimizer

    whole, optimizer = made()
    loop(whole, optimizer, range(3))
    first, optimizer = made()
    loop(first, optimizer, range(2))
    buffer = io.BytesIO()
    state = {"pruner": first.state_dict(), "model": first.model.state_dict(),
             "optimizer": optimizer.state_dict()}  # fmt: skip
    torch.save(state, buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)  # tensors, numbers and strings alone
    assert all(isinstance(v, (torch.Tensor, int, str)) for v in state["pruner"].values())
    second, optimizer = made()
    second.load_state_dict(state["pruner"])
    second.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    loop(second, optimizer, range(2, 3))
    ours, theirs = whole.finish(), second.finish()
    assert_equal(ours, theirs)
    assert (whole.plan and whole.plan.remove) == (second.plan and second.plan.remove)


def test_units_leave_along_the_schedule_and_the_budget_holds_at_the_end():
    net = small_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    recipe = {"updates": 18, "flops": "0.4x", "steps": 3, "schedule": "linear", "until": 1.0}
    pruner = sc.Pruner(net, recipe, IMAGES, optimizer)
    full, seen = structure_of_small_net().cost({}).flops, []
    for number, (inputs, targets) in enumerate(
        batch for epoch in range(3) for batch in batches(blobs(96), 16, seed=0, epoch=epoch)
    ):
        before = pruner.model
        optimizer.zero_grad()
        functional.cross_entropy(pruner.model(inputs), targets).backward()
        optimizer.step()
        assert pruner.step() == (number + 1 in (6, 12, 18)) == (pruner.model is not before)
        if number + 1 in (6, 12, 18):
            seen.append(sc.trace(pruner.model, IMAGES).cost({}).flops / full)
            assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
                id(p) for p in pruner.model.parameters()
            }
    assert [share <= goal for share, goal in zip(seen, (0.8, 0.6, 0.4), strict=True)] == [True] * 3
    assert seen[0] > 0.6 and seen[1] > 0.4  # and no faster than that
    pruned = pruner.finish()
    assert pruned is pruner.model and pruner.plan is not None
    # the plan is one, in the numbering of the dense model, and makes this model's shapes from it
    again = sc.apply(small_net().eval(), pruner.plan, IMAGES)
    assert [p.shape for p in again.parameters()] == [p.shape for p in pruned.parameters()]


def test_one_cut_is_made_in_finish_with_units_that_a_method_chose():
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    recipe = {"updates": 72, "regularise": {"l0": {"remove": 0.4}}}
    pruner = sc.Pruner(net, recipe, IMAGES, optimizer)
    loop(pruner, optimizer, range(6), data=blobs(192))
    pruned = pruner.finish()
    assert pruner.plan is not None and len(pruner.plan) == round(0.4 * 14)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in net.parameters())
    assert L0(remove=0.4) and pruner.finish() is pruned  # asked twice, it is the same


def test_a_forward_pass_is_masked_and_the_weights_behind_the_masks_are_safe():
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    recipe = {"updates": 12, "during": {"method": "gradual", "zeros": 0.6, "every": 1}}
    pruner = sc.Pruner(net, recipe, IMAGES, optimizer)
    loop(pruner, optimizer, range(2))
    whole = copy.deepcopy(net.state_dict())
    assert all(bool(t.all()) for n, t in whole.items() if n.endswith("weight"))
    with torch.no_grad():
        seen = net.eval()(IMAGES)
    assert all(torch.equal(t, whole[n]) for n, t in net.state_dict().items())
    with pruner.shown() as model, torch.no_grad():
        zeros = sum(int((p == 0).sum()) for p in model.parameters() if p.dim() > 1)
        assert zeros == round(0.6 * 864)
        torch.testing.assert_close(model(IMAGES), seen)
    assert all(torch.equal(t, whole[n]) for n, t in net.state_dict().items())
    copied = copy.deepcopy(net)  # knows nothing of the pruner
    with torch.no_grad():
        assert not torch.equal(copied(IMAGES), seen)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_the_next_step_of_a_cut_optimizer_is_that_of_a_fresh_slice(kind):
    net, structure = quiet_net(), structure_of_small_net()
    make = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
            "adam": lambda p: torch.optim.Adam(p, lr=0.01),
            "adamw": lambda p: torch.optim.AdamW(p, lr=0.01)}[kind]  # fmt: skip
    optimizer = make(net.parameters())
    for inputs, targets in batches(blobs(64), 16):
        optimizer.zero_grad()
        functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    remove = {"0": (1, 5), "4": (0, 2)}
    pruned = sc.apply(net.eval(), sc.PruningPlan(remove=remove), IMAGES, structure=structure)
    rows = {"0.weight": (0, [0, 2, 3, 4, 6, 7]), "4.weight": (0, [1, 3, 4, 5])}
    columns = {"4.weight": (1, [0, 2, 3, 4, 6, 7]),
               "8.weight": (1, [c for c in range(96) if c // 16 not in (0, 2)])}  # fmt: skip

    def by_hand(name: str, tensor: torch.Tensor) -> torch.Tensor:
        layer = int(name.split(".")[0])
        if tensor.dim() == 1:
            index = {0: rows["0.weight"], 1: rows["0.weight"], 4: rows["4.weight"],
                     5: rows["4.weight"]}.get(layer)  # fmt: skip
            return tensor[index[1]] if index else tensor
        for places in (rows, columns):
            if name in places:
                tensor = tensor.index_select(places[name][0], torch.tensor(places[name][1]))
        return tensor

    names = [name for name, _ in net.named_parameters()]
    slices = [nn.Parameter(by_hand(n, p.detach().clone())) for n, p in net.named_parameters()]
    other = make(slices)
    for name, (old, fresh) in zip(names, zip(net.parameters(), slices, strict=True), strict=True):
        other.state[fresh] = {
            key: by_hand(name, v).clone() if torch.is_tensor(v) and v.shape == old.shape else
            (v.clone() if torch.is_tensor(v) else v)
            for key, v in optimizer.state[old].items()
        }  # fmt: skip
    sc.cut_optimizer(optimizer, net, pruned, structure, remove)
    generator = torch.Generator().manual_seed(0)
    for ours, theirs in zip(pruned.parameters(), slices, strict=True):
        assert ours.shape == theirs.shape
        ours.grad = torch.randn(ours.shape, generator=generator)
        theirs.grad = ours.grad.clone()
    for each in (optimizer, other):
        each.step()
    for name, ours, theirs in zip(names, pruned.parameters(), slices, strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
        assert optimizer.state[ours].keys() == other.state[theirs].keys()


def test_a_cut_optimizer_keeps_what_is_not_of_the_model():
    net, head = small_net(), nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)
    remove = {"0": (1,)}
    pruned = sc.apply(
        net.eval(), sc.PruningPlan(remove=remove), IMAGES, structure=structure_of_small_net()
    )  # fmt: skip
    sc.cut_optimizer(optimizer, net, pruned, structure_of_small_net(), remove)
    found = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert found == {id(p) for p in [*pruned.parameters(), *head.parameters()]}
    optimizer.state.clear()
    other = torch.optim.SGD(small_net().parameters(), lr=0.1)
    before = list(other.param_groups[0]["params"])
    sc.cut_optimizer(other, net, pruned, structure_of_small_net(), remove)
    assert other.param_groups[0]["params"] == before


@pytest.mark.parametrize(("recipe", "sentence"), [
    ({"updates": 10}, "nothing to do"),
    ({"flops": 0.5}, "'updates' is missing"),
    ({"updates": 10, "flop": 0.5}, "did you mean 'flops'"),
    ({"updates": 10, "during": {"zeros": 0.5}}, "'during' needs a method"),
    ({"updates": 10, "during": {"method": "rigl", "zeros": 1.5}}, r"zeros is 1\.5"),
    ({"updates": 10, "regularise": {"l0": {"remove": 2}}}, "remove is 2"),
    ({"updates": 10, "flops": 0.5, "steps": 2, "regularise": {"l1": {}}}, "several cuts change"),
    ({"updates": 10, "regularise": {"gaussian-noise": {}}}, "reads inputs and answers"),
])  # fmt: skip
def test_bad_recipes_are_refused_in_a_sentence(recipe, sentence):
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(sc.InputError, match=sentence):
        sc.Pruner(net, recipe, IMAGES, optimizer)


def test_calls_in_the_wrong_order_are_refused():
    net = small_net()
    recipe = {"updates": 10, "during": {"method": "gradual", "zeros": 0.5}}
    with pytest.raises(sc.InputError, match="give Pruner"):
        sc.Pruner(net, recipe, IMAGES)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = sc.Pruner(net, recipe, IMAGES, optimizer)
    with pytest.raises(sc.InputError, match=r"call optimizer\.step\(\) first"):
        pruner.step()
    with pytest.raises(sc.InputError, match="Gradual is not done after 0 of 10 updates"):
        pruner.finish()
    with pytest.raises(sc.InputError, match="no state of a Pruner"):
        pruner.load_state_dict({})
    other = sc.Pruner(net, {**recipe, "updates": 11}, IMAGES, optimizer)
    with pytest.raises(sc.InputError, match="another recipe"):
        pruner.load_state_dict(other.state_dict())
    assert model_tensors(net)
