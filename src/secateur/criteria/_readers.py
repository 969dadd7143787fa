"""Members of a group whose layers read it, shared by criteria of a layer's inputs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from secateur.errors import InputError
from secateur.protocols import UnitGroup, UnitMember


def readers(group: UnitGroup, known: Mapping[str, Tensor], name: str) -> list[UnitMember]:
    """The members that read a group by a weight of which ``known`` holds something.

    name: the criterion that asks. Raises InputError for a group that no linear layer reads.
    """
    found = [m for m in group.members if m.role == "in" and m.tensor in known]
    if not found:
        raise InputError(
            f"{name} judges by the linear layers that read a group, and none of which inputs are "
            f"known reads group {group.name!r}; give data where there was none, take 'l2', or "
            f"leave the group out with layers={{{group.name!r}: 'keep'}}"
        )
    return found
