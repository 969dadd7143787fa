"""Models of timm and transformers as `make zoo` checks them: a few here, all of them there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_zoo.checking import check
from model_zoo.plans import halved_evenly
from model_zoo.subjects import build

import secateur as sc

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


@pytest.mark.parametrize("name", ["bart", "llama-grouped"])
def test_a_pruned_language_model_generates_with_its_cache(name: str) -> None:
    subject = build(f"transformers:{name}")
    model, inputs = subject.model.eval(), subject.inputs
    structure = sc.trace(model, inputs)
    plan = sc.PruningPlan(halved_evenly(structure, seed=0))
    pruned: Any = sc.apply(model, plan, inputs, structure=structure)
    assert type(pruned) is type(model)
    settings = {
        "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "bos_token_id": 1,
        "decoder_start_token_id": 1,
    }  # fmt: skip
    with torch.no_grad():
        step_by_step = pruned.generate(inputs["input_ids"], **settings)
        anew = pruned.generate(inputs["input_ids"], **settings, use_cache=False)
    assert torch.equal(step_by_step, anew)
