"""Samplers: one file each, found by its name. A new one is a new file here, or an entry point.

Each file offers `make(seed, startup, candidates)`: an Optuna sampler that draws from `seed` and, if it learns, draws at
random until it was told of `startup` candidates. One that compares whole candidates finds them in `candidates`; others
have no need of it. `RESUMES` says whether it may propose what paused at a rung once more, to be trained on: then new
candidates begin at the lowest rung (`nas.surrogate.rungs`). Without it, or where it is false, each is trained whole.
`STATELESS` says whether a proposal depends on nothing but what the sampler was told and the number of its trial: a run
that goes on then need not have it propose again what it has.
Other packages bring samplers through the entry points `framebudget.samplers` (see
`space.extensions`). No file here imports Optuna before it is called.
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
    """What every file in this folder offers."""

    def make(self, seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
        """A new sampler."""


def names() -> tuple[str, ...]:
    """Every sampler, by its name."""
    return tuple(extensions.modules(__name__, GROUP))


def resumes(name: str) -> bool:
    """Whether a sampler of the kind `name` proposes again what paused, to be trained on.

    Raises: UserError when there is none, with the nearest known name.
    """
    return bool(getattr(extensions.load(__name__, GROUP, name, needs=("make",)), "RESUMES", False))


def stateless(name: str) -> bool:
    """Whether a sampler of the kind `name` keeps nothing in mind beside the study.

    Raises: UserError when there is none, with the nearest known name.
    """
    return bool(getattr(extensions.load(__name__, GROUP, name, needs=("make",)), "STATELESS", False))


def make(name: str, *, seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
    """A sampler of the kind `name`.

    Raises: UserError when there is none, with the nearest known name, or when it is asked in another way than this.
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
