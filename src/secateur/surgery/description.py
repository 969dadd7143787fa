"""``surgery.json``: how a stored model was made, checked entry by entry when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from secateur.errors import InputError

SCHEMA = "secateur.model/1"


def _dtype(name: str) -> str:
    if not isinstance(getattr(torch, name, None), torch.dtype):
        raise ValueError(f"torch has no type {name!r}")
    return name


class Description(BaseModel):
    """How a stored model was made.

    edits: attributes that module surgery mended, by path of the module.
    inputs: shape and type of every tensor leaf of the example inputs.
    scales: factors folded into the rows of a tensor. aliases: tied name -> stored name.
    transient: buffers outside the state dict. parameters: names in the graphs, None without graph.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["secateur.model/1"] = Field(alias="schema")
    kind: Literal["module", "graph"]
    edits: dict[str, dict[str, Any]]
    inputs: list[tuple[list[int], Annotated[str, AfterValidator(_dtype)]]]
    notes: list[str]
    scales: dict[str, list[float]]
    transient: list[str]
    trainable: list[str]
    aliases: dict[str, str]
    parameters: list[str] | None

    def text(self) -> str:
        """The file's content."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


def read_description(path: Path, text: str) -> Description:
    """Errors: InputError naming the first entry that is missing, unknown or of another kind."""
    try:
        description = Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        where = f" at '{place}'" if place else ""
        raise InputError(
            f"{path} does not describe a pruned model ({first['msg'][:120]}{where}); "
            "write or copy it again"
        ) from error
    return description
