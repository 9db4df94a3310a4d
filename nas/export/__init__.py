"""A network as an ONNX graph (`graph`, with the `rewrites` of some operations), the file `formats` that are made of it,
and the `comparison` of what they give with PyTorch. `quantized` makes graphs in INT8, `grid` reads where they round.
"""
