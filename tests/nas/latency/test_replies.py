"""Errors that one process of the program reports to another."""

from __future__ import annotations

import inspect
import json

import pytest

import nas.errors
import space.errors
from nas.latency.worker.replies import accept, answer
from space.errors import UserError

KINDS = sorted(
    {
        kind
        for module in (space.errors, nas.errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, UserError)
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_in_another_process_is_raised_as_the_same_kind_of_error(kind: type[UserError]) -> None:
    """The kind distinguishes a verdict on a network from a full disk, for example."""

    def refuse() -> dict[str, object]:
        raise kind("why")

    with pytest.raises(UserError, match="why") as told:
        accept(json.loads(json.dumps(answer(refuse))))
    assert type(told.value) is kind
