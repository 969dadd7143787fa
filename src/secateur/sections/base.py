"""What all sections of a recipe have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from secateur.errors import InputError
from secateur.quantities import Kind, parse_quantity


def quantity(kind: Kind) -> Any:
    """Text of a quantity, checked and written in its normal form."""

    def checked(value: Any) -> str:
        try:
            return str(parse_quantity(value, kind))
        except InputError as error:  # pydantic adds the place to a ValueError, and to no other
            raise ValueError(str(error)) from error

    return Annotated[str, BeforeValidator(checked)]


class Section(BaseModel):
    """Closed and frozen: a typing mistake is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )
