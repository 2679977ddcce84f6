"""The two links between parties: Model Sharing API and Dataset Sharing API, their client and their tokens."""

__version__ = "0.1.0"
