"""Whether runs asked the same question and differ only by chance; otherwise a mean of their winners has no meaning."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from nas.runs.data_seen import data_seen
from nas.runs.folder import RunFolder
from nas.runs.initial_weights import initial_weights
from nas.runs.terms import flat, runs_as, terms_of
from space import UserError

CHANCE = ("seed", "concurrent", "trials_per_gpu", "loggers")
"""Fields of a search plan that may differ between such runs."""


def require_alike(runs: Sequence[RunFolder]) -> None:
    """Require that all runs have the data, budget, target, recipe, space and plan of the first.

    Raises: UserError that names the differences of a run, or when a file of a run is damaged.
    """
    roots = [run.root.resolve() for run in runs]
    if twice := next((run for run, root in zip(runs, roots, strict=True) if roots.count(root) > 1), None):
        raise UserError(f"expected each run once, got {twice.root} twice; leave one out")
    first = runs[0]
    asked, data = _asked(first), data_seen(first.root)
    for run in runs[1:]:
        other, seen = _asked(run), data_seen(run.root)
        words = [
            f"{name}: {asked.get(name, 'none')} and {other.get(name, 'none')}"
            for name in {**asked, **other}
            if asked.get(name) != other.get(name)
        ]
        if data is not None and seen is not None and (changed := data.fingerprint.difference(seen.fingerprint)):
            words.insert(0, f"data: {changed}")
        if words:
            raise UserError(
                f"expected runs that differ only in their seeds, got {first.root} and {run.root} with another "
                f"{'; '.join(words)}; report on them one by one{_same_budgets(first, run)}"
            )


def _same_budgets(first: RunFolder, other: RunFolder) -> str:
    """Advice on searching with the budgets of the first run: `--frontier` chooses budgets by a run's own timings."""
    asked, others = first.study().asked, other.study().asked
    if asked == others or not (asked.several and others.several):
        return ""
    budgets = " ".join(f"--budget {shlex.quote(str(budget))}" for budget in asked)
    return f", or search anew with the budgets of the first, where --frontier chose them by its own timings: {budgets}"


def _asked(run: RunFolder) -> Mapping[str, object]:
    """Names and values that all runs must share."""
    study = run.study()
    begun = initial_weights(run.root)
    plan = {name: value for name, value in asdict(study.search).items() if name not in CHANCE}
    return {
        "data": study.data.name,
        "data.size": study.data.size,
        "budget": str(study.asked),
        "target": runs_as(study.target, chosen=False),
        "device": _device(run),
        "init": None if begun is None else begun.sha256,
        "--from": run.sources(),
        **dict(flat(asdict(terms_of(study)))),
        **dict(flat({"space": study.space, "search": plan})),
    }


def _device(run: RunFolder) -> str:
    """The GPU or processor that the candidates of a run were timed on."""
    latencies = (trial.latency for trial in run.trials())
    environment = next((each.environment for each in latencies if each is not None), {})
    return environment.get("gpu") or environment.get("cpu", "unknown")
