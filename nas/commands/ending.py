"""What is said of a command that ends before it is done: what is kept of it, and how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from nas.commands import common


@contextlib.contextmanager
def told(words: Callable[[], str]) -> Iterator[None]:
    """Print `words()`, asked for then, where what is done inside is interrupted, or breaks: by a full disk, want of
    memory or a fault of ours. The program's own line follows. A refusal says itself what to do.
    """
    from space.errors import UserError

    try:
        yield
    except (UserError, SystemExit, BrokenPipeError):
        raise
    except BaseException:
        with contextlib.suppress(OSError):  # nobody may be there to read it
            common.say(f"\n{words()}")
        raise


def begins_anew(what: str) -> str:
    """Of a command that keeps nothing before it is done; `what` is lost."""
    return f"{what} so far is not kept: the same command begins anew"
