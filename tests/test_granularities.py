"""Every granularity keeps what all promise."""

from __future__ import annotations

from granularity_cases import GranularityTests
from secateur.granularities import GRANULARITIES, cells_of


def case(name: str) -> type[GranularityTests]:
    make = staticmethod(lambda: cells_of(name, (2, 3) if "block" in name else None))
    return type(f"Test{name.title().replace('-', '')}", (GranularityTests,), {"make": make})


SHIPPED = GRANULARITIES.names()
for _name in SHIPPED:
    _case = case(_name)
    globals()[_case.__name__] = _case
