"""What a user can change in a model so that a held dimension becomes free."""

from __future__ import annotations

# The beginning of a reason -> what to do. Reasons without an entry have no remedy: a vocabulary,
# the positions of a sequence and the gates of a recurrence are what the model is about.
REMEDIES = {
    "it is an output of the model": (
        "secateur.keep_classes cuts classes; another output that nobody reads can be taken out of "
        "what forward returns"
    ),
    "it meets an input": "secateur.drop_features cuts columns or channels of an input",
    "it meets the input": (
        "secateur.drop_features cuts inputs, secateur.keep_classes cuts classes"
    ),
    "forward does not use it": "delete it from the model",
    "these inputs do not read it": "cut it off the table, if no longer input will ever come",
    "it is not of the part": "trace the whole model, or a part that holds all that use it",
    "no rule for this operation": (
        "write it with operations that have a rule, or add a rule (docs/architecture.md)"
    ),
    "its rule does not understand this call": "please report the call and the version of torch",
    "its rule gives another shape": "please report the call and the version of torch",
    "a reshape of": (
        "let the reshape keep this dimension whole, or cut it at whole units (heads, groups)"
    ),
    "a reshape cuts across what would leave": (
        "let the reshape cut the dimension at whole units (heads, groups)"
    ),
    "rows and columns are held": (
        "let the reshape keep the rows and the columns apart, one dimension each"
    ),
    "the dimension only repeats": "give each of the repeated places a weight of its own",
    "it is used by itself": "select a slice that can become shorter instead of one index",
    "this index is selected by itself": "read a slice that can become shorter, not one index",
    "every index is used by itself": "keep the dimension in one tensor instead of unbinding it",
    "the places of what was chosen are read": (
        "use them as indices alone: of gather, scatter, one_hot or an embedding"
    ),
    "indices are chosen by data": "choose along another dimension",
    "values are put in order across it": "sort along another dimension",
    "places of values are returned": "return the values instead of their places",
    "roll over the flattened tensor": "give roll the dimension that it shifts",
    "repeat_interleave with a tensor of counts": "give the number of repeats as one number",
    "slice_scatter": "concatenate the pieces instead",
    "it is padded with its own values": "pad with a constant",
    "a call that is not an operation": "move the call out of forward",
}  # fmt: skip


def remedy_for(reason: str) -> str:
    """What would free a dimension that is held for this reason; "" where nothing would."""
    return next((words for start, words in REMEDIES.items() if reason.startswith(start)), "")
