"""The public face: its names, and a command line that answers ``--help`` at once."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest

import secateur
from secateur import errors

DOCUMENTED = {"trace", "plan", "apply", "verify", "save", "load", "compress"}
DOCUMENTED |= {"PruningPlan", "Structure"}
ERRORS = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}

HELP = """
import sys, time
sys.argv = ["secateur", "--help"]
from secateur.cli import main
try:
    main()
finally:
    heavy = sorted({"torch", "numpy", "scipy", "torchmetrics", "onnx"} & set(sys.modules))
    print(heavy, time.process_time(), file=sys.stderr)
"""


def test_all_is_sorted_and_holds_what_is_documented():
    assert list(secateur.__all__) == sorted(set(secateur.__all__))
    assert set(secateur.__all__) >= DOCUMENTED | ERRORS


def test_all_is_what_people_see():
    """Tab completion shows every public name, and nothing of ours is public by accident."""
    assert set(secateur.__all__) <= set(dir(secateur))
    ours = {
        name
        for name, value in vars(secateur).items()
        if str(getattr(value, "__module__", "")).startswith("secateur")
    }
    assert {name for name in ours if not name.startswith("_")} <= set(secateur.__all__)


def test_every_public_name_is_there_and_documented():
    undocumented = [
        name for name in secateur.__all__ if not inspect.getdoc(getattr(secateur, name))
    ]
    assert undocumented == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = secateur.no_such_name


def test_no_module_is_called_like_a_public_name():
    """Importing ``secateur.plan`` would put the module where the function stands."""
    modules = {module.name for module in pkgutil.iter_modules(secateur.__path__)}
    assert modules.isdisjoint(secateur.__all__)


def test_importing_the_face_imports_no_torch():
    code = "import sys, secateur; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_help_is_quick_and_imports_nothing_heavy():
    seconds = []
    for _ in range(3):  # the first run may have to compile bytecode
        run = subprocess.run(
            [sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        assert "Usage: secateur" in run.stdout
        heavy, _, spent = run.stderr.strip().splitlines()[-1].rpartition(" ")
        assert heavy == "[]"
        seconds.append(float(spent))
    assert min(seconds) < 0.5, f"CPU seconds of `secateur --help`: {seconds}"
