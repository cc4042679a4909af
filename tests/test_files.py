"""Labelled video files, whatever the list of paths and labels is."""

import re

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]")

import mp4

from pymultigrid import Schedule, Shape, mini_batch
from pymultigrid._files import VideoFiles

LEVELS = [30, 90, 150, 210]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Grey videos: the label of each is its level."""
    root = tmp_path_factory.mktemp("grey")
    return [mp4.write_grey(root / f"{level}.mp4", level) for level in LEVELS]


def table(paths):
    pandas = pytest.importorskip("pandas", reason="pandas is missing: columns of a table are NOT tested as labels")
    return pandas.DataFrame({"path": list(map(str, paths)), "label": LEVELS})


FORMS = {
    "list": lambda t: (t.path.tolist(), t.label.tolist()),
    "generators": lambda t: (iter(t.path.tolist()), iter(t.label.tolist())),
    "array": lambda t: (t.path.to_numpy(), t.label.to_numpy()),
    "shuffled table": lambda t: (lambda t: (t.path, t.label))(t.sample(frac=1, random_state=1)),
    "filtered table": lambda t: (lambda t: (t.path, t.label))(t[t.label > 30]),
    "sorted table": lambda t: (lambda t: (t.path, t.label))(t.sort_values("label", ascending=False)),
    "categories": lambda t: (t.path[::-1], t.label.astype("category")[::-1]),
    "nullable": lambda t: (t.path[::-1], t.label.astype("Int64")[::-1]),
    "texts": lambda t: (t.path[::-1], t.label.astype(str)[::-1]),
    "index": lambda t: (t.path[::-1], t.set_index("label").index[::-1]),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_video_has_its_own_label(paths, form):
    files = VideoFiles(*form(table(paths)))
    schedule = Schedule(Shape(1, 4, 16, 16), samples=len(files), epochs=4)
    seen = set()
    for step in schedule:
        batch = mini_batch(schedule, step, seed=0)
        for place, index, frames, _ in files.decoded(batch):
            assert index == batch[place].index
            assert abs(float(frames.mean()) - int(files.labels[index])) < 5
            seen.add(index)
    assert len(seen) == len(files) >= 3
    part = files.subset([2, 0])
    assert list(part.labels) == [files.labels[2], files.labels[0]]


def test_labels_of_several_numbers(paths):
    both = table(paths).assign(other=[1, 2, 3, 4])[["label", "other"]][::-1]
    assert [list(row) for row in VideoFiles(paths[::-1], both).labels] == [[210, 4], [150, 3], [90, 2], [30, 1]]
    torch = pytest.importorskip("torch", reason="PyTorch is missing: its tensors are NOT tested as labels")
    rows = torch.arange(8.0).view(4, 2)
    assert torch.equal(VideoFiles(paths, rows).labels[3], rows[3])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            dict(enumerate(LEVELS)),
            "labels is a dict ({0: 30, 1: 90, 2: 150, 3: 210}); pass a list, an array",
        ),
        (set(LEVELS), "labels is a set ("),
        (3, "labels is a int (3); pass a list"),
        (None, "labels is a NoneType (None); pass a list"),
        (np.array(3), "labels is a single value (array(3)); pass one for each file"),
    ],
    ids=["dict", "set", "number", "none", "array"],
)
def test_labels_without_an_order(paths, labels, said):
    with pytest.raises(TypeError, match=re.escape(said)):
        VideoFiles(paths, labels)


def test_paths_without_an_order(paths):
    with pytest.raises(TypeError, match=re.escape("paths is a set (")):
        VideoFiles(set(paths), LEVELS)
    with pytest.raises(TypeError, match=re.escape("paths has 3, which is not a path; pass the files' names")):
        VideoFiles([*paths[:3], 3], LEVELS)
