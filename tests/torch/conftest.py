"""The tests of pymultigrid.torch: without PyTorch none of them is collected, and the end of the run says so."""

import importlib.util

# This folder's own name is no torch: a package has a file that it comes from.
torch = importlib.util.find_spec("torch")
collect_ignore_glob = [] if torch is not None and torch.origin else ["test_*.py"]


def pytest_terminal_summary(terminalreporter):
    if collect_ignore_glob:
        terminalreporter.section("PyTorch is missing: pymultigrid.torch was NOT tested; pip install pymultigrid[torch]")
