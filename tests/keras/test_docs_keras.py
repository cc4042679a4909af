"""docs/keras.md runs as written, and the example in a small version."""

import importlib.util
import re
import sys
from pathlib import Path

import mp4
import numpy as np
import pytest
from toy import BACKEND, network

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the page runs on one backend")
def test_the_page(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "keras.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    paths = 8 * [mp4.write(tmp_path / f"{i}.mp4") for i in range(3)]
    names = {"paths": paths, "labels": 8 * [0, 1, 0], "test_paths": paths[:3], "test_labels": [0, 1, 0]}
    names["model"] = network()
    exec(compile(blocks[0], "keras.md", "exec"), names)
    model, schedule = names["model"], names["schedule"]
    assert int(model.optimizer.iterations) == len(schedule)
    assert len(model.history.history["val_accuracy"]) == len(model.history.epoch)
    exec(compile(blocks[1], "keras.md", "exec"), names)
    assert names["report"].schedule == schedule
    exec(compile(blocks[2], "keras.md", "exec"), names)
    assert names["logits"].shape == (3, 2)

    import tensorflow as tf

    names["videos"] = tf.data.Dataset.from_tensors(np.zeros((16, 40, 48, 3), "uint8")).repeat(len(schedule))
    exec(compile(blocks[3], "keras.md", "exec"), names)
    for step, clip in zip(schedule, names["clips"], strict=True):
        assert tuple(clip.shape) == (*tuple(step.shape)[1:], 3)


@pytest.mark.skipif(BACKEND != "torch", reason="the example runs on one backend, the fastest on CPUs")
def test_the_example(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is missing: the Keras example was NOT run")
    pytest.importorskip("tqdm", reason="tqdm is missing: the Keras example was NOT run")
    spec = importlib.util.spec_from_file_location("keras_demo", ROOT / "examples" / "keras_demo.py")
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    monkeypatch.setattr(sys, "argv", ["demo", "--output", str(tmp_path), "--videos", "24", "--epochs", "1"])
    with pytest.warns(UserWarning, match="momentum=0.9 of batch_normalization"):  # so short a run is told of
        demo.main()
    assert len(list((tmp_path / "data" / "train").glob("*.mp4"))) == 24
    printed = capsys.readouterr().out
    assert "lr_scale" in printed
    assert re.search(r"long\+short on torch: \d+ iterations, \d+ s; digit and motion right in [\d.]+ % of 8", printed)
