"""A run's answer in sentences."""

from __future__ import annotations

from nas.report.effort import Effort
from nas.report.summary import VERDICTS, Summary
from nas.report.winners import Winner
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
        f"{timing.ci_low_milliseconds:.2f} to {timing.ci_high_milliseconds:.2f} ms){statistic} on {_place(winner)}; "
        f"budget {certificate.budget}: {VERDICTS[certificate.verdict]}; {certificate.parameters:,} parameters, "
        f"{certificate.multiply_adds / 1e9:.2f} G multiply-adds."
    )


def _answers(summary: Summary, where: str) -> str:
    """What came of each of several budgets."""
    places = {_place(winner) for winner in summary.winners}
    one = len(places) == 1
    found = [
        f"{each.budget}: {each.winner.name}, {each.winner.miou:.1%} mIoU in {each.winner.timing.milliseconds:.2f} ms "
        f"{'' if one else f'on {_place(each.winner)} '}({VERDICTS[each.winner.certificate.verdict]})"
        for each in summary.answers
        if each.winner is not None
    ]
    if not found:
        trained = sum(bool(each.epochs) for each in summary.trials)
        return (
            f"No winners yet for {summary.budget} on {where}: {len(summary.trials)} candidates were proposed and "
            f"{trained} of them trained. Go on with `nas search --resume`."
        )
    count = f"{len(found)} of {len(summary.answers)} budgets have a winner"
    return f"{count}{f' on {places.pop()}' if one else ''}. {'; '.join(found)}."


def _place(winner: Winner) -> str:
    """What a winner was timed on, in the precision that it ships in, and at which size."""
    latency = winner.certificate.latency
    return f"{latency.target} at {latency.height}x{latency.width}"


def efforts(summary: Summary) -> list[str]:
    """What the sampler's guidance was worth, in a sentence or two; with several budgets so for each."""
    if not summary.answers:
        return [_effort(summary.effort)]
    return [f"{each.budget}: {_effort(each.effort)}" for each in summary.answers]


def _effort(effort: Effort) -> str:
    if not effort.draws:
        return "There is no random control: no random draw was trained whole, here or in a run that this one took over."
    earlier = f", {effort.earlier_draws} of them in runs that this one took over" if effort.earlier_draws else ""
    drawn = f"{effort.draws} random draw{' was' if effort.draws == 1 else 's were'} trained whole{earlier}."
    if not effort.guided_trials:
        return f"{drawn} No guided candidate was trained to compare them with."
    random, guided = (
        "none" if miou is None else f"{percent(miou)} %" for miou in (effort.best_random_miou, effort.best_guided_miou)
    )
    words = [
        drawn,
        f"{effort.guided_trials} guided candidates cost as much as {effort.guided_cost:.1f} whole trainings"
        f"{', which is more' if effort.fewer else ''}.",
        f"At a cost of {effort.compared} the best mIoU inside the budget after whole trainings is {random} of the "
        f"random{'' if effort.fewer else ' (expected)'} and {guided} of the guided ones.",
    ]
    if effort.earlier_draws or effort.random_trials > effort.draws:
        words.append("Draws that paused or failed are left out, which favours random search.")
    return " ".join([*words, "Guided candidates were proposed knowing the results of those before them."])
