"""``plan`` end to end: budgets, rules about layers, and plans that can be applied and verified."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import secateur as sc
from oracle import call, leaves, randomise
from policy_cases import BUDGETED
from secateur.choosing import plan
from secateur.criteria import CRITERIA
from secateur.criteria.movement import Movement
from secateur.measure.sizes import count_bytes
from secateur.protocols import Data
from torchvision_shim import import_torchvision
from zoo import ZOO

NETS = ("conv_bn_relu", "bottleneck", "dense_block", "packed_attention", "inverted_residual")


@cache
def resnet() -> tuple[nn.Module, sc.Structure]:
    torch.manual_seed(0)
    model = import_torchvision().models.resnet18(num_classes=10)
    return model, sc.trace(model, torch.randn(1, 3, 64, 64))


@cache
def small(net: str) -> tuple[nn.Module, sc.Structure]:
    torch.manual_seed(0)
    model = randomise(ZOO[net].build(), 0).float()
    return model, sc.trace(model, ZOO[net].inputs())


def images(batches: int = 2) -> list:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(2, 3, 64, 64, generator=generator),
         torch.randint(0, 10, (2,), generator=generator))
        for _ in range(batches)
    ]  # fmt: skip


def share(made: sc.PruningPlan, kind: str = "flops") -> float:
    before, after = made.expect[kind]
    return after / before


def left(made: sc.PruningPlan) -> dict[str, int]:
    return {name: size - len(made.remove.get(name, ())) for name, size in made.sizes.items()}


SIGNED = ("grasp", "movement")  # compared as they are, by ``global`` alone
IMAGES = ("bn-scale", "hrank")  # not of every net
# Every pair of a net and a scope, and every criterion.
TRIPLES = [
    (
        NETS[0] if criterion in IMAGES else NETS[j % len(NETS)],
        "global" if criterion in SIGNED else BUDGETED[j // len(NETS) % len(BUDGETED)],
        criterion,
    )
    for j, criterion in enumerate(sorted(CRITERIA.names(), key=lambda n: n in (*SIGNED, *IMAGES)))
]


@pytest.mark.parametrize(("net", "scope", "criterion"), TRIPLES)
def test_every_scope_and_criterion_can_be_applied_and_verified(net, scope, criterion):
    model, structure = small(net)
    inputs = ZOO[net].inputs()
    target = torch.zeros_like(leaves(call(model, inputs))[0])
    layers: dict = {}
    if criterion == "movement":
        criterion = Movement(sums={n: p.detach() - 0.1 for n, p in model.named_parameters()})

    def loss(outputs, targets):
        return functional.mse_loss(leaves(outputs)[0], targets)

    made = plan(model, structure, criterion, {"params": 0.8}, scope, [(inputs, target)], loss,
                layers=layers)  # fmt: skip
    assert made and share(made, "params") <= 0.8
    pruned = sc.apply(model, made, inputs, structure=structure)
    assert sum(p.numel() for p in pruned.parameters()) == made.expect["params"][1]
    assert sc.verify(model, pruned, made, inputs, structure=structure).ok


def test_a_group_without_a_batch_norm_is_said():
    model, structure = small("packed_attention")
    with pytest.raises(sc.InputError, match="has none; use the criterion 'l2'"):
        plan(model, structure, "bn-scale", {"params": 0.8})


@pytest.mark.parametrize("criterion", ["l2", "taylor", "random"])
@pytest.mark.parametrize("scope", BUDGETED)
@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
def test_resnet18_meets_its_budget_closely(scope, criterion, budget):
    model, structure = resnet()
    made = plan(model, structure, criterion, {"flops": budget}, scope, images())
    assert 0.99 * budget < share(made) <= budget


@pytest.mark.parametrize("scope", BUDGETED)
def test_resnet18_in_multiples_of_8_is_within_one_step(scope):
    model, structure = resnet()
    made = plan(model, structure, "l2", {"flops": 0.5}, scope, round_to=8)
    assert set(left(made)) == {g.name for g in structure.groups}
    for indices in structure.kept(made.remove).values():
        assert len(indices) % 8 == 0
    # the dearest step that anything could have been given back
    limit = 0.5 * made.expect["flops"][0]
    fits = []
    for name, units in made.remove.items():
        fewer = dict(made.remove) | {name: units[8:]}
        fits.append(structure.cost(fewer).flops <= limit)
    assert not all(fits) if scope == "uniform" else not any(fits)
    assert 0.97 * 0.5 < share(made) <= 0.5


@pytest.mark.parametrize("scope", BUDGETED)
def test_resnet18_is_applied_and_verified(scope):
    model, structure = resnet()
    inputs = torch.randn(1, 3, 64, 64)
    made = plan(model, structure, "l1", {"flops": "40%", "params": "4M"}, scope, round_to=4)
    assert share(made) <= 0.4 and made.expect["params"][1] <= 4_000_000
    pruned = sc.apply(model, made, inputs, structure=structure)
    assert sc.verify(model, pruned, made, inputs, structure=structure).ok


@pytest.mark.parametrize("budget", [0.5, "0.5x", "50%", "50 %"])
def test_a_budget_is_written_in_many_ways(budget):
    model, structure = small("bottleneck")
    assert plan(model, structure, budget={"flops": budget}) == plan(model, structure)


def test_the_triples_hold_every_pair():
    """Of a net and a scope, and every criterion."""
    assert {(net, scope) for net, scope, _ in TRIPLES} == set(product(NETS, BUDGETED))
    assert {criterion for _, _, criterion in TRIPLES} == set(CRITERIA.names())


def test_an_absolute_budget():
    model, structure = small("bottleneck")
    dense = structure.cost({}).params
    made = plan(model, structure, budget={"params": f"{dense * 0.7 / 1000:.3f}k"})
    assert 0.5 * dense < made.expect["params"][1] <= 0.7 * dense + 1


@pytest.mark.parametrize("net", ["basic_blocks", "tied_embedding", "vision_transformer"])
def test_a_budget_of_bytes_is_that_of_the_file(net, tmp_path):
    entry = ZOO[net]
    model = entry.build().eval()
    structure = sc.trace(model, entry.inputs())
    for written in ("0.8x", f"{round(count_bytes(model) * 0.8)}B"):
        made = plan(model, structure, budget={"bytes": written}, scope="knapsack")
        pruned = sc.apply(model, made, entry.inputs(), structure=structure)
        sc.save(pruned, tmp_path / "saved")
        (file,) = (tmp_path / "saved").glob("*.safetensors")
        assert 0.4 * count_bytes(model) < file.stat().st_size <= 0.8 * count_bytes(model)


def test_bytes_count_every_type_and_what_is_no_parameter():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)).eval()
    structure = sc.trace(model, torch.randn(1, 3, 4, 4))
    assert structure.cost({}).bytes == 4 * (18 + 6 + 4 * 6 + 12 + 2) + 8
    assert structure.cost({"0": [1, 2]}).bytes == 4 * (12 + 4 + 4 * 4 + 8 + 2) + 8


def test_the_plan_says_why_and_what_to_expect():
    model, structure = small("bottleneck")
    made = plan(model, structure, "l1", {"flops": 0.6}, "local", round_to=2, floor=0.2, seed=3)
    assert made.why == {
        "criterion": "l1", "scope": "local", "budget": {"flops": "0.6x"}, "round_to": 2,
        "floor": 0.2, "layers": {}, "seed": 3, "normalise": "mean",
    }  # fmt: skip
    assert made.fingerprint == structure.fingerprint
    assert made.expect["flops"] == [structure.cost({}).flops, structure.cost(made.remove).flops]
    assert sc.PruningPlan.from_json(made.to_json()) == made


@pytest.mark.parametrize("criterion", ["random", "taylor"])
def test_the_seed_decides(criterion):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
    structure = sc.trace(model, torch.randn(2, 8))
    generator = torch.Generator().manual_seed(0)
    train = TensorDataset(torch.randn(600, 8, generator=generator),
                          torch.arange(600) % 3)  # fmt: skip
    data = Data("noise", train, train, classes=3)
    made = [plan(model, structure, criterion, data=data, seed=seed) for seed in (1, 1, 2)]
    assert made[0].remove == made[1].remove
    assert made[0].remove != made[2].remove


def test_the_weakest_unit_leaves_first():
    _, structure = small("bottleneck")
    model = randomise(ZOO["bottleneck"].build(), 0).float()
    group, unit = structure.groups[0], 2
    with torch.no_grad():
        for member in group.members:
            if member.role != "stat":
                index = torch.as_tensor(member.index[unit])
                model.get_parameter(member.tensor).index_fill_(member.dim, index, 1e-9)
    dense = structure.cost({}).flops
    made = plan(model, structure, budget={"flops": str(dense - 1)})
    assert made.remove == {group.name: (unit,)}


@pytest.mark.parametrize("scope", BUDGETED)
def test_the_model_is_untouched(scope):
    model, structure = small("bottleneck")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan(model, structure, "l2", scope=scope)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_a_criterion_of_ones_own():
    class Reverse:
        needs: frozenset[str] = frozenset()

        def __call__(self, group, statistics):
            return torch.arange(group.size, 0, -1, dtype=torch.float64)

    model, structure = small("bottleneck")
    made = plan(model, structure, Reverse(), scope="uniform")
    assert made.why["criterion"] == "Reverse"
    for name, units in made.remove.items():
        size = made.sizes[name]
        assert units == tuple(range(size - len(units), size))


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        ({"layer1": "keep"}, ("layer1.0.conv1", "layer1.1.conv1")),
        ({"layer1.*": "keep"}, ("layer1.0.conv1", "layer1.1.conv1")),
        ({"layer?.0.conv1": "keep"}, ("layer1.0.conv1", "layer4.0.conv1")),
        ({"layer4.1.conv1.weight": "keep"}, ("layer4.1.conv1",)),
        ({"type:Conv2d": "keep", "layer2": True, "layer3": True}, ("layer1.0.conv1", "conv1")),
        ({"*": "keep", "layer3.*": True}, ("conv1", "layer1.0.conv1", "layer4.1.conv1")),
        ({"layer2": 0.5, "layer2.1": "keep"}, ("layer2.1.conv1",)),
    ],
)
def test_layers_that_are_kept_lose_nothing(layers, kept):
    model, structure = resnet()
    made = plan(model, structure, budget={"flops": 0.9}, layers=layers)
    assert made and share(made) <= 0.9
    assert not set(kept) & set(made.remove)
    assert set(kept) < set(plan(model, structure, budget={"flops": 0.5}).remove)


def test_a_ratio_holds_whatever_the_budget():
    model, structure = resnet()
    made = plan(model, structure, budget={"flops": 0.6}, layers={"layer1.0.conv1": 0.25})
    assert len(made.remove["layer1.0.conv1"]) == 16
    alone = plan(model, structure, budget={}, layers={"layer1.0": 0.25, "layer1.0.conv2": "keep"})
    assert {name: len(units) for name, units in alone.remove.items()} == {"layer1.0.conv1": 16}


def test_a_tied_layer_has_both_names():
    model, structure = small("tied_embedding")
    (alias,) = {name.rpartition(".")[0] for name in structure.aliases}
    (tensor,) = set(structure.aliases.values())
    groups = [g for g in structure.groups for m in g.members if m.tensor == tensor]
    assert groups
    made = plan(model, structure, budget={"params": 0.9}, layers={alias: "keep"})
    owners = {g.name for g in groups if any(m.tensor == tensor and m.role == "out"
                                            for m in g.members)}  # fmt: skip
    assert not owners & set(made.remove)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"criterion": "tailor"}, "unknown criterion 'tailor': did you mean 'taylor'"),
        ({"scope": "globl"}, "unknown policy 'globl': did you mean 'global'"),
        ({"criterion": "taylor"}, "'taylor' needs data for its gradients"),
        ({"criterion": "taylor", "data": []}, "holds no batch"),
        ({"budget": {"flop": 0.5}}, "unknown budget 'flop': did you mean 'flops'"),
        ({"budget": {"latency": "5ms"}}, "a budget of latency needs the times of this machine"),
        ({"budget": {"flops": "5ms"}}, "flops wants a fraction"),
        ({"budget": {"flops": 0}}, "a fraction of dense lies above 0"),
        ({"budget": {}}, "budget is empty"),
        ({"budget": 0.5}, r"budget is 0\.5; give a mapping"),
        ({"round_to": 0}, "round_to is 0"),
        ({"floor": 0}, "floor is 0"),
        ({"floor": 1.5}, r"floor is 1\.5"),
        ({"floor": -0.5}, r"floor is -0\.5"),
        ({"seed": -1}, "seed is -1"),
        ({"normalise": "median"}, "unknown normaliser 'median'"),
        ({"layers": {"layr1.*": "keep"}}, r"'layr1.\*', which no .* did you mean 'layer1"),
        ({"layers": {"layer1": "skip"}}, "layers has 'skip' for 'layer1'"),
        ({"layers": {"layer1": 1.0}}, r"layers has 1\.0 for 'layer1'"),
        ({"layers": {"layer1": False}}, "layers has False for 'layer1'"),
        ({"layers": {"type:Conv2": "keep"}}, "'Conv2': did you mean 'Conv"),
        ({"layers": {"type:LSTM": "keep"}}, "has no such module"),
        ({"layers": {"fc": 0.5}}, "nothing that it produces can leave"),
    ],
)
def test_what_cannot_be_used_is_said(values, message):
    model, structure = resnet()
    with pytest.raises(sc.InputError, match=message):
        plan(model, structure, **values)


def test_keeping_what_cannot_leave_is_no_mistake():
    model, structure = resnet()
    assert plan(model, structure, layers={"fc": "keep"}) == plan(model, structure)


def test_an_impossible_budget_says_what_can_be_reached():
    model, structure = resnet()
    with pytest.raises(sc.BudgetError, match=r"flops 0\.01x .* smallest reachable is [\d.]+%"):
        plan(model, structure, budget={"flops": 0.01}, floor=0.3)


def test_a_structure_of_another_model_is_refused():
    with pytest.raises(sc.PlanMismatch, match="the structure is not of this model"):
        plan(small("bottleneck")[0], small("conv_bn_relu")[1])
