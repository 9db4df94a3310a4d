"""The files of a run: its folder, trained networks, the winner and its certificate."""
