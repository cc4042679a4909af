"""Video files that the tests of both adapters read."""

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three classes of two videos each."""
    import mp4  # needs PyAV, which most tests do without

    return mp4.write_classes(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def paths(folder):
    return sorted(folder.glob("*/*.mp4"))
