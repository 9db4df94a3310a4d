"""The loop over batches of training and scoring. It pauses while another process times a network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TypeVar, cast

import torch

from nas.data.batches import Batches
from nas.data.long_work import Guard as Guard
from nas.data.share import WHOLE, Share
from nas.errors import DataError
from nas.host.room import is_shortage
from nas.host.words import one_line
from nas.training.together import all_have, entered_by_first, meet
from space.errors import UserError

Item = TypeVar("Item")

Count = Callable[[int], None]
"""Called with the number of images in each batch, by the loop that worked on it. A guard cannot report this number,
since batches are also made inside one."""


TOGETHER = 8
"""Batches worked on inside one guard on a GPU, without waiting for queued work in between."""


def uncounted(images: int) -> None:
    """A Count that does nothing."""


def settled() -> None:
    """The default `settle` of `guarded`, for loops that leave no work queued when they ask for the next batch."""


def guarded(
    batches: Iterable[Item],
    guard: Guard,
    *,
    together: int = 1,
    settle: Callable[[], None] = settled,
    share: Share = WHOLE,
) -> Generator[Item, None, None]:
    """Yield the batches, each inside a `guard()` of its own that is held until the next one is asked for.

    `together`: up to this many batches of a loader share one guard, as long as the next one is ready. Waiting for it
    while holding the guard could be a deadlock, since the thread that makes it may be waiting for a guard. `settle()`
    waits for the work queued on a GPU, before a guard is left. `share`: if several processes work on their shares of
    each batch, they do so at the same time, inside one guard of the first process.

    Batches of a loader are made ahead by a thread, each inside a `guard()` of its own, and waited for outside any
    guard. Other batches are fetched inside the guard that they are worked on in, since decoding images disturbs a
    latency measurement too. A loop that ends early, by a `break` or an error, leaves the guard held and the thread
    running until this generator is closed, so use it as

        with contextlib.closing(guarded(batches, guard)) as steps:
            for batch in steps:
                ...

    Raises: DataError when a batch cannot be fetched, whatever the loader raises: its error says nothing of the network.
    """
    source = iter(batches)
    of_loader = batches if isinstance(batches, Batches) else None
    if of_loader is not None:
        with of_loader.ahead(guard):
            batch = _fetched(source)
            while batch is not None:
                with of_loader.worked_on(partial(entered_by_first, guard, share), partial(meet, share)):
                    yield batch
                    batch = None
                    for _ in range(together - 1):
                        batch = cast("Item | None", of_loader.made_already())
                        if not all_have(batch is not None, share):
                            break
                        assert batch is not None, "all have one"
                        yield batch
                        batch = None
                    settle()
                if batch is None:  # one process may have had its next batch ready when another had not
                    batch = _fetched(source)
        return
    assert share.is_whole, "only batches of a loader are shared by several processes"
    while True:
        with guard():
            if (batch := _fetched(source)) is None:
                return
            yield batch
            settle()


def guarded_on(
    device: torch.device, batches: Iterable[Item], guard: Guard, *, share: Share = WHOLE
) -> Generator[Item, None, None]:
    """`guarded` batches whose results are not read before the last one: on a GPU several are queued together, and all
    are finished before a guard is left.
    """
    if device.type != "cuda":
        return guarded(batches, guard, share=share)
    return guarded(batches, guard, together=TOGETHER, settle=partial(torch.cuda.synchronize, device), share=share)


def _fetched(source: Iterator[Item]) -> Item | None:
    """The next batch; None after the last one."""
    try:
        return next(source, None)
    except (UserError, OSError, AssertionError):
        raise
    except Exception as error:
        if is_shortage(error):
            raise
        words = one_line(error, 300, end=True) or type(error).__name__
        raise DataError(f"expected a batch of images and labels, but reading it failed: {words}") from error
