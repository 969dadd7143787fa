"""The recipes in ``examples/`` can be carried out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from command_cases import secateur
from secateur.config import read_recipe
from secateur.job.checking import check_recipe
from secateur.job.contests import KEY, Comparison

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_one(path, tmp_path):
    document = {**yaml.safe_load(path.read_text()), "folder": str(EXAMPLES)}
    if KEY in document:
        comparison = Comparison.of(document, path.name, tmp_path)
        assert len(list(comparison.cells())) >= 12 * 5 * 3
    else:
        check_recipe(read_recipe(document, path.name))


def test_the_first_convolution_loses_weights_and_none_comes_back(tmp_path):
    """examples/mnist_l1.yaml with two epochs in place of ten, on a few digits of its size."""
    document = yaml.safe_load((EXAMPLES / "mnist_l1.yaml").read_text())
    document["data"] = {"source": "digits", "image_size": 28, "limit": 200, "batch_size": 50}
    document["model"] = f"{EXAMPLES / 'nets.py'}:TwoConvolutions"
    for name in ("train_dense", "finetune"):
        document[name]["epochs"] = 2
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    done = secateur(tmp_path, "run", "recipe.yaml", "--output", "run", "--json")
    assert done.returncode in (0, 3), done.stderr
    metrics = json.loads(done.stdout)
    assert {"accuracy", "loss"} <= set(metrics["before"]["metric"])
    assert {"accuracy", "loss"} <= set(metrics["after"]["metric"])
    from safetensors.torch import load_file

    tensors = load_file(next((tmp_path / "run" / "model").glob("*.safetensors")))
    zeros = {name: int((t == 0).sum()) for name, t in tensors.items() if name.endswith("weight")}
    assert zeros["conv1.weight"] >= 200 == tensors["conv1.weight"].numel() // 2
    stages = load_file(next((tmp_path / "run" / "steps" / "sparsify").glob("*.safetensors")))
    before = stages["conv1.weight"] == 0
    assert bool((tensors["conv1.weight"][before] == 0).all())
