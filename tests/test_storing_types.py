"""Models that answer with a type of their library, loaded where nobody has imported it yet."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils import _pytree as pytree

import secateur as sc

LIBRARY = """
import torch
from torch import nn
from torch.utils import _pytree as pytree

class Answer(dict):
    pass

pytree.register_pytree_node(
    Answer,
    lambda answer: (list(answer.values()), list(answer)),
    lambda values, names: Answer(zip(names, values)),
    serialized_type_name="some_library.Answer",
    to_dumpable_context=lambda names: names,
    from_dumpable_context=lambda names: names,
)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 12), nn.Linear(12, 3)

    def forward(self, x):
        return Answer(logits=self.b(self.a(x).relu()))

def build():
    torch.manual_seed(0)
    return Net().eval()
"""
PROGRAM = """
import sys
import torch
import secateur as sc

def build():
    import some_library
    return some_library.build()

x = torch.linspace(-1, 1, 8).reshape(2, 4)
try:
    sc.load("out")
except sc.SecateurError as error:
    print("refused:", error)
assert "some_library" not in sys.modules
print(sc.load("out", build).eval()(x)["logits"].tolist())
print(sc.load("out").eval()(x)["logits"].tolist())
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    (tmp_path / "some_library.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import some_library  # type: ignore[import-not-found]

    yield some_library
    pytree._deregister_pytree_node(some_library.Answer)
    del sys.modules["some_library"]


def test_the_builder_makes_the_types_of_its_library_known(library, tmp_path):
    model, x = library.build(), torch.linspace(-1, 1, 8).reshape(2, 4)
    plan = sc.PruningPlan(remove={"a": range(5)})
    pruned = sc.apply(model, plan, x, method="graph")
    sc.save(pruned, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    refused, *answers = done.stdout.splitlines()
    assert "container that is not known here" in refused and "give load the function" in refused
    expected = str(pruned.eval()(x)["logits"].tolist())
    assert answers == [expected, expected]
