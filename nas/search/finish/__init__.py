"""The end of a search.

`finishing` trains the finalists to the end and certifies the best one, by one of several `recipes`. `cutting` prunes
published networks over the budget into it, and `shipping` decides in which precision a network is certified.
"""
