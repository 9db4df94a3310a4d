"""What the program's last line says of a command that ends before it is done: what is kept of it, and how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def told(words: Callable[[], str]) -> Iterator[None]:
    """Have `nas.cli` say `words()`, asked for then, where what is done inside is interrupted, or breaks: by a full
    disk, want of memory, a reader that is gone or a fault of ours. A refusal says itself what to do.
    """
    from space.errors import UserError

    try:
        yield
    except (UserError, SystemExit):
        raise
    except BaseException as error:
        error.add_note(words())
        raise


def begins_anew(what: str) -> str:
    """Of a command that keeps nothing before it is done; `what` is lost."""
    return f"{what} so far is not kept: the same command begins anew"
