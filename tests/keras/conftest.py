"""The tests of pymultigrid.keras. Keras has one backend per process: tests/test_keras.py runs this folder for each."""

import os

if "KERAS_BACKEND" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


def pytest_configure(config):
    if "KERAS_BACKEND" in os.environ:
        # Keras 3.15 converts its own variables without NumPy 2's copy= keyword, on every backend.
        message = "__array__ implementation doesn't accept a copy keyword"
        config.addinivalue_line("filterwarnings", f"ignore:{message}:DeprecationWarning")
