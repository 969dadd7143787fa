"""A zoo of tiny nets, one per structural idiom, with groups written by hand."""

from __future__ import annotations

from . import (
    attention,
    attention_variants,
    borrowed,
    chains,
    concat,
    found,
    functional,
    gated,
    gathering,
    grouped,
    interfaces,
    language,
    mixers,
    norms,
    parametrized,
    positions,
    recurrent,
    reshapes,
    residuals,
    routed,
    scaled_attention,
    shuffles,
    slices,
    squeeze_excite,
    tied,
    torch_attention,
    transposed,
    written,
)
from .table import Entry, Expected

FAMILIES = (
    chains,
    residuals,
    concat,
    slices,
    gated,
    grouped,
    shuffles,
    transposed,
    squeeze_excite,
    norms,
    parametrized,
    reshapes,
    attention,
    torch_attention,
    attention_variants,
    language,
    mixers,
    tied,
    functional,
    recurrent,
    interfaces,
    positions,
    gathering,
    routed,
    scaled_attention,
    written,
    borrowed,
    found,
)

ZOO: dict[str, Entry] = {}
for family in FAMILIES:
    for entry in family.ENTRIES:
        assert entry.name not in ZOO, f"two entries are called {entry.name}"
        ZOO[entry.name] = entry

__all__ = ["ZOO", "Entry", "Expected"]
