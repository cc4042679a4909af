"""The resampler and its ring of buffers hold without a GIL: run under ThreadSanitizer, as on free-threaded Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CSRC = TESTS.parent / "csrc"


def test_no_data_race(tmp_path):
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("races: not run, ThreadSanitizer needs g++ or clang++")
    sources = [*sorted(CSRC.glob("resample/*.cpp")), *sorted(CSRC.glob("resample/cpu/*.cpp")), TESTS / "races.cpp"]
    program = tmp_path / "races"
    built = subprocess.run(
        [*compiler.split(), "-std=c++17", "-O1", "-g", "-fsanitize=thread", f"-I{CSRC}", *sources, "-o", program],
        capture_output=True,
        text=True,
    )
    if "cannot find" in built.stderr and "tsan" in built.stderr:
        pytest.skip("races: not run, the compiler comes without ThreadSanitizer's library")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program], capture_output=True, text=True)
    if "unexpected memory mapping" in ran.stderr:
        pytest.skip("races: not run, ThreadSanitizer does not know this kernel's memory layout")
    assert ran.returncode == 0, ran.stdout + ran.stderr[:4000]
    assert "0 wrong values" in ran.stdout
    assert "WARNING: ThreadSanitizer" not in ran.stderr
