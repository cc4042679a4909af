"""The code of docs/video.md runs as written, on a real file."""

import re
from pathlib import Path

import pytest

pytest.importorskip("av", reason="PyAV is missing: docs/video.md was NOT run")

import mp4
import video_kinds

DOCS = Path(__file__).parents[1] / "docs" / "video.md"
TEXT = DOCS.read_text()


def test_the_code_runs(tmp_path):
    path = mp4.write(tmp_path / "clip.mp4")
    names = {"path": path, "paths": [path], "labels": [0], "index": tmp_path / "videos.index"}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, DOCS.name, "exec"), names)
    assert names["pixels"].shape == (3, mp4.HEIGHT, mp4.WIDTH, 3)
    assert names["failed"] == {}


def test_the_table_has_every_kind():
    rows = re.findall(r"^\| ([^|]+) \| (\d+) of (\d+) \|", TEXT, re.MULTILINE)
    assert [kind for kind, _, _ in rows] == list(video_kinds.KINDS)
    assert all(right == of for _, right, of in rows)
