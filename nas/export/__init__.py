"""A network as an ONNX graph (`graph`, with the `rewrites` of some operations), and its `comparison` with PyTorch."""
