"""The end of the program's last line for a command that ends early: what is kept, and how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def told(words: Callable[[], str]) -> Iterator[None]:
    """Have `nas.cli` add `words()`, called at that moment, to its message if the body is interrupted or fails: by a
    full disk, lack of memory, a closed output pipe or a bug of ours. A UserError says itself what to do.
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
    """The words for a command that keeps nothing before it is done, so that `what` is lost."""
    return f"{what} so far is not kept: the same command begins anew"
