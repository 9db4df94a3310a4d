"""A run's answer in sentences."""

from __future__ import annotations

from nas.report.standings import Effort
from nas.report.summary import VERDICTS, Summary
from nas.terminal import percent


def headline(summary: Summary) -> str:
    """The run's answer in one sentence, or how far it is."""
    where = f"{summary.target} at {summary.input_size[0]}x{summary.input_size[1]}"
    if summary.answers:
        return _answers(summary, where)
    winner = summary.winner
    if winner is None:
        trained = sum(bool(each.epochs) for each in summary.trials)
        return (
            f"No winner yet for {summary.budget} on {where}: {len(summary.trials)} candidates were proposed and "
            f"{trained} of them trained. Go on with `nas search --resume`."
        )
    certificate, timing = winner.certificate, winner.timing
    statistic = "" if summary.statistic == "p50" else f" ({summary.statistic} {timing.milliseconds:.2f} ms)"
    return (
        f"{winner.name}: {winner.miou:.1%} mIoU in {timing.p50_milliseconds:.2f} ms (95 % interval "
        f"{timing.ci_low_milliseconds:.2f} to {timing.ci_high_milliseconds:.2f} ms){statistic} on {where}; budget "
        f"{certificate.budget}: {VERDICTS[certificate.verdict]}; {certificate.parameters:,} parameters, "
        f"{certificate.multiply_adds / 1e9:.2f} G multiply-adds."
    )


def _answers(summary: Summary, where: str) -> str:
    """What came of each of several budgets."""
    found = [
        f"{each.budget}: {each.winner.name}, {each.winner.miou:.1%} mIoU in {each.winner.timing.milliseconds:.2f} ms "
        f"({VERDICTS[each.winner.certificate.verdict]})"
        for each in summary.answers
        if each.winner is not None
    ]
    if not found:
        trained = sum(bool(each.epochs) for each in summary.trials)
        return (
            f"No winners yet for {summary.budget} on {where}: {len(summary.trials)} candidates were proposed and "
            f"{trained} of them trained. Go on with `nas search --resume`."
        )
    count = f"{len(found)} of {len(summary.answers)} budgets have a winner on {where}"
    return f"{count}. {'; '.join(found)}."


def efforts(summary: Summary) -> list[str]:
    """What the sampler's guidance was worth, in a sentence or two; with several budgets so for each."""
    if not summary.answers:
        return [_effort(summary.effort)]
    return [f"{each.budget}: {_effort(each.effort)}" for each in summary.answers]


def _effort(effort: Effort) -> str:
    found = f"{effort.random_trials} random and {effort.guided_trials} guided candidates were trained."
    if effort.compared == 0:
        return f"{found} Guided and random search cannot be compared without some of both."
    random, guided = (
        "none" if miou is None else f"{percent(miou)} %" for miou in (effort.best_random_miou, effort.best_guided_miou)
    )
    after = "the search phase" if effort.epochs is None else f"the shortest training, {effort.epochs} epochs,"
    return (
        f"{found} Among the first {effort.compared} of each, the best mIoU inside the budget after {after} is "
        f"{random} of the random and {guided} of the guided ones. "
        "Guided candidates were proposed knowing the results of those before them."
    )
