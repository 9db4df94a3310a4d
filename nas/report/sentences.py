"""A run's result in sentences."""

from __future__ import annotations

from nas.host.words import counted
from nas.report.effort import Effort
from nas.report.summary import VERDICTS, Summary
from nas.report.winners import Winner
from nas.terminal import percent


def headline(summary: Summary) -> str:
    """The result of a run in one sentence, or how far it is."""
    where = f"{summary.target} at {summary.input_size[0]}x{summary.input_size[1]}"
    if summary.answers:
        return _answers(summary, where)
    winner = summary.winner
    if winner is None:
        trained = sum(bool(each.epochs) for each in summary.trials)
        return (
            f"No winner yet for {summary.budget} on {where}: {counted(len(summary.trials), 'candidate')} proposed, "
            f"{trained} trained. Resume with `nas search --resume`."
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
    """The results for several budgets."""
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
            f"No winners yet for {summary.budget} on {where}: {counted(len(summary.trials), 'candidate')} proposed, "
            f"{trained} trained. Resume with `nas search --resume`."
        )
    budgets = f"of {len(summary.answers)} budgets"
    count = counted(len(found), f"{budgets} has a winner", f"{budgets} have a winner")
    return f"{count}{f' on {places.pop()}' if one else ''}. {'; '.join(found)}."


def _place(winner: Winner) -> str:
    """The target that a winner was timed on, with its precision, and the input size."""
    latency = winner.certificate.latency
    return f"{latency.target} at {latency.height}x{latency.width}"


def efforts(summary: Summary) -> list[str]:
    """The value of the sampler's guidance in a few sentences, for each budget."""
    if not summary.answers:
        return [_effort(summary.effort)]
    return [f"{each.budget}: {_effort(each.effort)}" for each in summary.answers]


def _effort(effort: Effort) -> str:
    if not effort.draws:
        return (
            "There is no random control: no random draw was trained in full, in this run or in one that it took over."
        )
    earlier = f", {effort.earlier_draws} in runs that this one took over" if effort.earlier_draws else ""
    drawn = f"{counted(effort.draws, 'random draw was', 'random draws were')} trained in full{earlier}."
    if not effort.guided_trials:
        return f"{drawn} No guided candidate was trained to compare with."
    random, guided = (
        "none" if miou is None else f"{percent(miou)} %" for miou in (effort.best_random_miou, effort.best_guided_miou)
    )
    words = [
        drawn,
        f"{counted(effort.guided_trials, 'guided candidate')} cost as much as {effort.guided_cost:.1f} full trainings"
        f"{', more than the random draws' if effort.fewer else ''}.",
        f"At an equal cost of {counted(effort.compared, 'full training')}, the best mIoU inside the budget is {random} "
        f"by random search{'' if effort.fewer else ' (expected value)'} and {guided} by guided search, counting only "
        "candidates that were trained in full.",
    ]
    if effort.earlier_draws or effort.random_trials > effort.draws:
        words.append("Random draws that paused or failed are left out, which favours random search.")
    return " ".join([*words, "Guided candidates were proposed with the results of earlier ones known."])
