"""A run's answer in sentences."""

from __future__ import annotations

from nas.report.summary import VERDICTS, Effort, Summary
from nas.terminal import percent


def headline(summary: Summary) -> str:
    """The run's answer in one sentence, or how far it is."""
    where = f"{summary.target} at {summary.input_size[0]}x{summary.input_size[1]}"
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


def effort_words(effort: Effort) -> str:
    """What the sampler's guidance was worth, in a sentence or two."""
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
