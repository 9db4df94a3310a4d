"""What a run leaves behind: its folder, trained networks, the winner and its certificate."""
