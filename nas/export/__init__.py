"""A network as an ONNX graph, compared with PyTorch."""
