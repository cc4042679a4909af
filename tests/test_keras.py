"""The Keras adapter on each backend: tests/keras in a process of its own, where KERAS_BACKEND chooses."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Two devices for the tests of distribution; a test process is one of many on a machine.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
}


def is_missing(package):
    """Whether there is no such package; folders of tests are called keras and torch, too, and have no file."""
    spec = importlib.util.find_spec(package)
    return spec is None or not spec.origin


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_on(backend, tmp_path):
    for package in ("keras", "av", backend):
        if is_missing(package):
            pytest.skip(f"{package} is missing: the Keras adapter was NOT tested on {backend}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "keras")]
    # Each model compiles each shape anew on JAX: most are the same program, found in the cache.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    environment = {**os.environ, **ENVIRONMENT, **cache, "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def error_without(package, **environment):
    code = f"import sys; sys.modules['{package}'] = None\nimport pymultigrid.keras"
    environment = {**os.environ, **ENVIRONMENT, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    return done.stderr.splitlines()[-1]


def test_without_keras_the_error_says_what_to_install():
    assert error_without("keras").startswith("ImportError: pymultigrid.keras needs Keras 3 and a backend of it; pip")


def test_without_its_backend_the_error_says_what_to_install():
    if is_missing("keras"):
        pytest.skip("keras is missing: the error without its backend was NOT tested")
    error = error_without("jax", KERAS_BACKEND="jax")
    assert error.startswith("ImportError: pymultigrid.keras needs Keras' backend, and it is missing: ")
    assert "pip install tensorflow, or jax or torch with its name in the environment variable" in error


def test_the_adapter_needs_no_video_decoder():
    if is_missing("keras"):
        pytest.skip("keras is missing: importing its adapter was NOT tested")
    code = "import sys; sys.modules['av'] = None\nimport pymultigrid.keras"
    environment = {**os.environ, **ENVIRONMENT, "KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
