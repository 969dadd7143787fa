"""Every error that a user can meet.

SecateurError                 base; the command line prints the sentence and exits with 2
├── InputError                a file, spec, recipe or value that cannot be used
├── CaptureError              torch.export cannot capture the model
├── PlanError                 a plan that cannot be read, or that asks for the impossible
│   └── PlanMismatch          a plan made for another model
├── BudgetError               a budget that cannot be reached
├── SurgeryError              a surgery cannot carry out a plan on this model
├── TrainingError             the loss is no longer a finite number
├── ExportError               an exported file does not compute what the model computes
└── NotExact                  removed does not equal zeroed: the result must not be used

A message says what was seen, what was expected, and what to do.
"""

from __future__ import annotations


class SecateurError(Exception):
    """Base of all errors with a message meant for the user."""


class InputError(SecateurError):
    """A file, a spec, a recipe or a value cannot be used."""


class CaptureError(SecateurError):
    """torch.export cannot capture the model; the message names the line."""


class PlanError(SecateurError):
    """A plan cannot be read, or asks for something impossible."""


class PlanMismatch(PlanError):
    """The plan was made for another model; the message names the first differing tensor."""


class BudgetError(SecateurError):
    """The budget cannot be reached; the message says the smallest cost that can.

    smallest: of the kinds that are out of reach, the smallest cost as a share of the dense
    model's; empty where the message alone says it.
    """

    def __init__(self, message: str = "", smallest: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.smallest = dict(smallest or {})


class SurgeryError(SecateurError):
    """A surgery cannot carry out the plan; the message names the line that held a size."""


class TrainingError(SecateurError):
    """A training went wrong: the loss is no longer a finite number."""


class ExportError(SecateurError):
    """The exported file does not compute what the model computes, or cannot be written."""


class NotExact(SecateurError):
    """The pruned model does not compute what the zeroed model computes."""
