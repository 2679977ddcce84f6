"""Serves accepted models by the Open Inference Protocol (v2, REST) on ONNX Runtime."""

__version__ = "0.1.0"
