"""Keras' versions: what is too old is refused where it is imported."""

import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("version", "refused"), [("3.8.0", True), ("2.15.0", True), ("3.10.0", False)])
def test_an_old_keras(version, refused):
    code = f"import keras\nkeras.__version__ = '{version}'\nimport pymultigrid.keras"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = re.escape(f"pymultigrid.keras needs Keras 3.9 or newer, not {version}; pip install 'keras>=3.9'")
    assert (done.returncode == 1) is refused, done.stderr
    assert bool(re.search(told, done.stderr)) is refused
