"""Pruning in ``transformers.Trainer``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from secateur.errors import InputError
from secateur.integrations._starting import begun
from secateur.training.checkpoints import read_checkpoint, write_checkpoint

FILE = "secateur.safetensors"  # in each checkpoint of the trainer


def trainer_callback(recipe: Mapping[str, Any], example_inputs: Any) -> Any:
    """A ``TrainerCallback`` that prunes: ``Trainer(..., callbacks=[trainer_callback(...)])``.

    recipe: as of ``secateur.Pruner``; ``updates`` and ``epochs`` are the trainer's where they are
    left out. After the training ``callback.model`` is the pruned model, ``callback.pruner`` knows
    the plan and the masks. The trainer's checkpoints hold the pruner's state, and a resumed
    training goes on from it.
    Errors: InputError without transformers, with ``load_best_model_at_end`` (earlier weights do not
    fit the masks that came after), and for several cuts.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise InputError(
            f"the callback is for transformers, which is not here ({error}); pip install "
            "'transformers[torch]'"
        ) from error

    class PruningCallback(TrainerCallback):
        """Prunes while a ``Trainer`` trains."""

        def __init__(self) -> None:
            self.pruner: Any = None
            self.model: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if args.load_best_model_at_end:
                raise InputError(
                    "load_best_model_at_end puts back weights that later masks do not fit; leave "
                    "it off while secateur prunes"
                )
            told = {
                "updates": state.max_steps,
                "epochs": min(state.max_steps, math.ceil(state.num_train_epochs)),
                **recipe,
            }
            kept = None
            if state.global_step:
                kept = _read(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE)
            optimizer = getattr(given["optimizer"], "optimizer", given["optimizer"])
            model = given["model"]
            self.pruner = begun(model, told, example_inputs, optimizer, kept, True)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.pruner.step()

        def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            _write(place / FILE, self.pruner.state_dict())

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.model = self.pruner.finish()

    return PruningCallback()


def _write(path: Path, state: Mapping[str, Any]) -> None:
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    write_checkpoint(path, tensors, {n: v for n, v in state.items() if n not in tensors})


def _read(path: Path) -> dict[str, Any]:
    tensors, document = read_checkpoint(path)
    return {**tensors, **json.loads(json.dumps(document))}
