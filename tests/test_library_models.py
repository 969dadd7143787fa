"""Models of timm and transformers as `make zoo` checks them: a few here, all of them there."""

from __future__ import annotations

import pytest
from model_zoo.checking import check

MODELS = {
    "timm:convnext_atto": "module",
    "timm:vit_tiny_patch16_224": "module",
    "transformers:bert": "module",
    "transformers:deberta-v2": "graph",
    "transformers:distilbert": "module",
    "transformers:gpt2": "module",
    "transformers:llama-grouped": "module",
    "transformers:vit": "module",
}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", MODELS)
def test_a_library_model_is_exact_under_random_plans(name: str) -> None:
    row = check(name)
    assert row["verdict"] in ("exact", "adapted"), row
    assert row["even"]["surgery"] in (MODELS[name], "module"), row["even"]
    assert row["left"] <= 0.4, row
