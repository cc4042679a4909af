"""Keras has one backend per process: test_keras.py runs test_keras_*.py once for each, in a process of its own."""

import os

if "KERAS_BACKEND" not in os.environ:
    collect_ignore_glob = ["test_keras_*.py"]


def pytest_configure(config):
    if os.environ.get("KERAS_BACKEND") in ("tensorflow", "torch"):
        # Keras 3.15 and TensorFlow 2.21 convert their own variables without NumPy 2's copy= keyword.
        message = "__array__ implementation doesn't accept a copy keyword"
        config.addinivalue_line("filterwarnings", f"ignore:{message}:DeprecationWarning")
