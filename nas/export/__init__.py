"""Export of networks: as an ONNX graph (`graph`, with `rewrites` of some operations) and as files in several `formats`,
with a `comparison` of their outputs with PyTorch's. `quantized` makes INT8 graphs, `grid` reads where they round.
"""
