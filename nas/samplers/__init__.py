"""Samplers, one file each, found by the name of the file. Add one as a new file here, or as an entry point.

Each file has a function `make(seed, startup, candidates)`. It returns an Optuna sampler that is seeded by `seed` and,
if it learns, draws at random until it knows the results of `startup` candidates. A sampler that compares whole
candidates finds them in `candidates`; others ignore it. Two constants are optional:

`RESUMES`: the sampler may propose a candidate again that paused at a rung, to be trained further. New candidates then
begin at the lowest rung (`nas.surrogate.rungs`). Where it is missing or false, each candidate is trained whole.

`STATELESS`: a proposal depends only on the results in the study and the number of its trial, so that a resumed run need
not have the sampler repeat its earlier proposals.

Other packages add samplers through the entry points `framebudget.samplers` (see `space.extensions`). No file here
imports Optuna before it is called.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Protocol, cast

from space import extensions
from space.errors import UserError

if TYPE_CHECKING:
    import optuna

    from nas.surrogate.candidates import Candidates

GROUP = "framebudget.samplers"


class SamplerModule(Protocol):
    """The interface of every file in this folder."""

    def make(self, seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
        """A new sampler."""


def names() -> tuple[str, ...]:
    """The names of all samplers."""
    return tuple(extensions.modules(__name__, GROUP))


def resumes(name: str) -> bool:
    """Whether the sampler `name` may propose paused candidates again, to be trained further.

    Raises: UserError when there is none, with the nearest known name.
    """
    return bool(getattr(extensions.load(__name__, GROUP, name, needs=("make",)), "RESUMES", False))


def stateless(name: str) -> bool:
    """Whether the sampler `name` has no state besides the study.

    Raises: UserError when there is none, with the nearest known name.
    """
    return bool(getattr(extensions.load(__name__, GROUP, name, needs=("make",)), "STATELESS", False))


def make(name: str, *, seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
    """A new sampler of the kind `name`.

    Raises: UserError when there is none, with the nearest known name, or when its `make` takes other parameters.
    """
    module = cast(SamplerModule, extensions.load(__name__, GROUP, name, needs=("make",)))
    signature = inspect.signature(module.make)
    try:
        signature.bind(seed, startup, candidates)
    except TypeError:
        raise UserError(
            f"{GROUP}: expected make(seed, startup, candidates) of '{name}', got make{signature}; install a version of "
            "its package for this framebudget"
        ) from None
    return module.make(seed, startup, candidates)
