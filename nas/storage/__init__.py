"""Files: writing them whole, and where what can be made again is kept."""
