"""The end of a search.

`finishing` trains the finalists on and certifies the best, by one of several `recipes`; `cutting` prunes what is over
the budget into it; `shipping` decides in which precision a network is certified.
"""
