"""The one loop over batches: never at work while another process times a network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

from space.errors import DataError, UserError

Item = TypeVar("Item")

Guard = Callable[[], AbstractContextManager[object]]
"""Gives the context in which one batch is fetched and worked on, such as `nas.latency.machine.lane.training_step`."""


def guarded(batches: Iterable[Item], guard: Guard) -> Generator[Item, None, None]:
    """The batches, each inside a `guard()` of its own from before it is fetched until the next one is asked for.

    Fetching is inside because decoding images disturbs a latency measurement as well. A loop that ends early, by a
    `break` or an error, leaves the guard entered until this generator is closed, so use it as

        with contextlib.closing(guarded(batches, guard)) as steps:
            for batch in steps:
                ...

    Raises: DataError when a batch cannot be fetched, whatever a loader makes of it: it says nothing about the network.
    """
    source = iter(batches)
    while True:
        with guard():
            try:
                batch = next(source)
            except StopIteration:
                return
            except (UserError, OSError, MemoryError, AssertionError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                words = " ".join(str(error).split())[-300:] or type(error).__name__
                raise DataError(f"expected a batch of images and labels, but reading it broke: {words}") from error
            yield batch
