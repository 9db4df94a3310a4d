"""The report of a run: its figures as plain values, and one HTML file.

    summary = summarize(RunFolder.open(path))   # plain values
    page = write_report(RunFolder.open(path))   # report.html and report.yaml in the run's folder
    print(leaderboard_text(RunFolder.open(path)))

`summary` and `agreement` compute the figures; the other modules present them. Importing this does not import torch.
"""

from nas.report.page import write_report as write_report
from nas.report.summary import Summary as Summary
from nas.report.summary import summarize as summarize
from nas.report.terminal import leaderboard_text as leaderboard_text
