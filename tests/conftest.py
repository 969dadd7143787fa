"""What all tests share: one thread, seeds, a fixed hypothesis profile, ``--regenerate``."""

from __future__ import annotations

import random
import signal
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import settings

from torchvision_shim import import_torchvision

torch.set_num_threads(1)
# A shell that starts the suite in the background has it ignore Ctrl-C, and its children with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write the golden files anew instead of comparing with them",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed before the fixtures: what a test draws must not hang on which tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared with."""
    return request.config.getoption("--regenerate")


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """torchvision, also where its compiled operators do not match torch."""
    return import_torchvision()
