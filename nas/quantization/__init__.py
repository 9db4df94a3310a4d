"""Lower precision for a trained network, kept only where it pays.

`forms` are the ways to run one network: a graph, a runtime and a precision. `calibration` gives the images that ranges
of activations are seen on. `runner` runs forms in a process of its own, where `scoring` has them give labels for real
images beside PyTorch, and `sensitivity` sees which convolutions lose most in INT8. `ranges` tells which weights range
too widely for it, `fine_tuning` trains a network that rounds, `verdicts` says of each form whether it is faster than
what it would replace and as good as asked, and `quantizer` is the way through. `shipping` gives the one form that a
network has on a target in lower precision, and `certified` the one that a certificate is about.
"""
