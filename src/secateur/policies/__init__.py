"""Policies: which units leave, so that budgets hold. A file is a policy.

A policy sorts the steps by which groups shrink into one line, and takes as few of them as the
budgets ask for. What a step costs is read from the structure, never worked out by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from secateur.planning import StructureLike
from secateur.policies._request import Request
from secateur.registry import Registry


class Policy(Protocol):
    """Choose the units that leave: group name -> unit numbers in original numbering, sorted.

    scores:  group name -> float [units], higher is kept; of the groups that may shrink.
    The result holds what ``request.removed`` names, and groups that lose something only.
    Raises BudgetError for budgets out of reach, InputError for scores that cannot be used.
    """

    def __call__(
        self, scores: Mapping[str, torch.Tensor], structure: StructureLike, request: Request
    ) -> dict[str, tuple[int, ...]]: ...


POLICIES: Registry[Policy] = Registry("policy", package="secateur.policies")
policy = POLICIES.register

__all__ = ["POLICIES", "Policy", "Request", "policy"]
