"""The package where something that it can use is missing."""

import subprocess
import sys


def test_the_adapter_needs_no_video_decoder():
    code = "import sys; sys.modules['av'] = None\nimport pymultigrid.torch"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_the_error_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None\nimport pymultigrid.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install pymultigrid[torch]" in done.stderr
