"""Lower precision for a trained network, kept only where it pays.

`workflow` is the whole of it, from a trained network to the certificate of the form that is kept.

A form (`forms`) is one way to run a network: a graph, a runtime and a precision. `quantizer` finds the best form with
the help of the others: `calibration` provides images for the ranges of activations, and `ranges` finds weights that
range too widely for INT8. `runner` runs forms in a process of its own, by which `scoring` compares their labels with
PyTorch's, and `sensitivity` finds the convolutions that lose most in INT8. `fine_tuning` trains a network that rounds
as in INT8, and `verdicts` decides whether a form is faster than the one it would replace and accurate enough.
`shipping` makes the form of a network for a target in lower precision, and `certified` loads the form that a
certificate is about.
"""
