"""From a recipe to a subject: model, example inputs and data, all checked before work begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.config import Recipe
from secateur.errors import InputError
from secateur.metrics import add_metric
from secateur.protocols import Data, Subject
from secateur.sources.data import check_labels, load_data
from secateur.sources.data._checking import named_splits
from secateur.sources.functions import load_function
from secateur.sources.models import load_model
from secateur.structure.inputs import as_arguments
from secateur.surgery.applying import refuse_nan
from secateur.training.loading import batches


def load_subject(recipe: Recipe) -> Subject:
    """Load the model, then the data. Errors: InputError for whatever cannot be used."""
    folder = Path(recipe.folder)
    torch.manual_seed(recipe.seed)
    subject = load_model(recipe.model, recipe.model_args, recipe.weights, folder)
    for name in {recipe.metric, *recipe.floors}:
        if ":" in name:
            add_metric(name, load_function(name, folder))
    refuse_nan(subject.model)
    data = None
    if recipe.data is not None:
        section = recipe.data
        data = load_data(
            section.source,
            folder,
            recipe.seed,
            path=section.path,
            limit=section.limit,
            image_size=section.image_size,
            channels=section.channels,
            val_share=section.val_share,
        )
        if recipe.loss:
            data = replace(data, loss=load_function(recipe.loss, folder))
    return with_inputs(subject, data, recipe.input)


def with_inputs(subject: Subject, data: Data | None, shape: list[int] | None) -> Subject:
    """The subject with its data, and with example inputs from the data, the shape or the model.

    Errors: InputError when there are none, or when the model does not run on them.
    """
    inputs: Any = subject.example_inputs
    if shape is not None:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(shape, generator=generator)
    elif data is not None:
        with named_splits(data):
            inputs = next(batches(data.train, 2))[0]
    if inputs is None:
        raise InputError(
            f"there are no example inputs for {subject.spec}; give data, or 'input' with a shape "
            "such as [1, 3, 224, 224]"
        )
    if data is not None:
        outputs = classes_of(subject.model, inputs, shape is not None)
        if outputs is not None and data.loss is None:  # its targets may be any numbers
            with named_splits(data):
                check_labels(data, outputs)
    return Subject(subject.spec, subject.model, subject.build, inputs, data)


def classes_of(model: nn.Module, inputs: Any, drawn: bool = False) -> int | None:
    """Width of the model's logits [N, classes], or None for other outputs.

    drawn: whether the inputs were made of a shape alone, which a message then says.
    Errors: InputError when the model does not run on the inputs.
    """
    args, kwargs = as_arguments(inputs)
    training = model.training
    try:
        with torch.no_grad():
            output = model.eval()(*args, **kwargs)
    # Whatever the user's forward raises becomes one sentence.
    except Exception as error:
        shapes = [tuple(t.shape) for t in args if isinstance(t, torch.Tensor)]
        shapes += [f"{name} {tuple(t.shape)}" for name, t in kwargs.items() if hasattr(t, "shape")]
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = _hint(model, [*args, *kwargs.values()], drawn)
        raise InputError(
            f"the model does not run on inputs of shape {shapes}: {said}{hint}"
        ) from error
    finally:
        model.train(training)
    is_logits = isinstance(output, torch.Tensor) and output.dim() == 2
    return int(output.shape[1]) if is_logits else None


def _hint(model: nn.Module, inputs: list[Any], drawn: bool) -> str:
    if drawn:
        return (
            "; inputs of a shape are one tensor of floats: for whole numbers or several inputs "
            "give data, or let the function that builds the model return (model, example_inputs)"
        )
    weights = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    # other whole numbers may be tokens
    given = [x.dtype for x in tensors if x.is_floating_point() or x.dtype == torch.uint8]
    wrong = next((dtype for dtype in given if dtype not in weights), None)
    if wrong is None or not weights:
        return ""
    told, wanted = str(wrong).removeprefix("torch."), str(min(weights, key=str))
    return f"; the inputs are {told} and the weights {wanted.removeprefix('torch.')}: convert one"
