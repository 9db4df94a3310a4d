"""The one loop over batches: never at work while another process times a network."""

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
from nas.training.together import all_have, entered_by_first, meet
from space.errors import UserError

Item = TypeVar("Item")

Count = Callable[[int], None]
"""Is told of the images of each batch by the loop that worked on it. A guard cannot tell: batches are made in one."""


TOGETHER = 8
"""Batches that are worked on inside one guard on a GPU: what is queued meanwhile is not waited for."""


def uncounted(images: int) -> None:
    """A Count where nobody wants to know."""


def settled() -> None:
    """For `guarded`, where nothing is under way any more when the next batch is asked for."""


def guarded(
    batches: Iterable[Item],
    guard: Guard,
    *,
    together: int = 1,
    settle: Callable[[], None] = settled,
    share: Share = WHOLE,
) -> Generator[Item, None, None]:
    """The batches, each inside a `guard()` of its own until the next one is asked for. Up to `together` of a loader are
    worked on inside one guard, as long as none has to be waited for: a guard that was held meanwhile might be what the
    next one waits for. `settle()` waits for what is queued on a GPU, before a guard is left. Where these are a `share`
    of batches that several processes work on together, they do so at the same time, inside one guard of the first one.

    Those of a loader are made ahead by a thread, each inside a `guard()` of its own too, and waited for outside. Others
    are fetched inside the guard that they are worked on in: decoding images disturbs a latency measurement as well. A
    loop that ends early, by a `break` or an error, leaves the guard entered and the thread at work until this generator
    is closed, so use it as

        with contextlib.closing(guarded(batches, guard)) as steps:
            for batch in steps:
                ...

    Raises: DataError when a batch cannot be fetched, whatever a loader makes of it: it says nothing about the network.
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
                if batch is None:  # of several processes one may have had the next when another had not
                    batch = _fetched(source)
        return
    assert share.is_whole, "others are worked on by one process"
    while True:
        with guard():
            if (batch := _fetched(source)) is None:
                return
            yield batch
            settle()


def guarded_on(
    device: torch.device, batches: Iterable[Item], guard: Guard, *, share: Share = WHOLE
) -> Generator[Item, None, None]:
    """`guarded` batches whose results nobody reads before the last one: on a GPU several of them are under way, and
    over before a guard is left.
    """
    if device.type != "cuda":
        return guarded(batches, guard, share=share)
    return guarded(batches, guard, together=TOGETHER, settle=partial(torch.cuda.synchronize, device), share=share)


def _fetched(source: Iterator[Item]) -> Item | None:
    """The next one, None after the last."""
    try:
        return next(source, None)
    except (UserError, OSError, AssertionError):
        raise
    except Exception as error:
        if is_shortage(error):
            raise
        words = " ".join(str(error).split())[-300:] or type(error).__name__
        raise DataError(f"expected a batch of images and labels, but reading it broke: {words}") from error
