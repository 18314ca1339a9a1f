"""The networks as ONNX graphs, built from a model directory's weights without torch."""
