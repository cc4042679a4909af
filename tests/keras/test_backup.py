import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import killed
import numpy as np
import pytest
from toy import BACKEND, SCHEDULE, compiled, fit, network, number

from pymultigrid.keras import MultigridCallback, SubBatchNormalization

CLOSE = {"rtol": 1e-4, "atol": 1e-6}


class Interrupt(Exception):
    pass


class Die(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise Interrupt


def diary(folder):
    return [(int(i), lr) for i, lr in map(str.split, (folder / "diary.txt").read_text().splitlines())]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a real kill on one backend; the others resume below")
def test_a_killed_training_goes_on(tmp_path):
    """SIGKILL in the middle of epoch 1, and again before its end."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    want = killed.train(whole)
    script, environment = Path(killed.__file__), {**os.environ, "PYTHONPATH": str(Path(killed.__file__).parent)}
    for die in (6, 9, -1):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(script), str(parts), str(die)],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == (-signal.SIGKILL if die >= 0 else 0), done.stderr
    steps = diary(parts)
    # Each start goes on with the step after the last backup.
    assert [i for i, _ in steps] == [*range(7), *range(6, 10), 10, 11]
    assert {lr for _, lr in steps} == {"0.05000"}
    with np.load(parts / "weights.npz") as got:
        for a, b in zip(got.values(), want, strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)


@pytest.mark.parametrize("after", [5, 8])
def test_backup_and_restore_in_the_middle_of_an_epoch(tmp_path, after):
    want = SubBatchNormalization.convert(compiled(network()))
    fit(want, MultigridCallback(SCHEDULE))
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=2)
    with pytest.raises(Interrupt):
        fit(SubBatchNormalization.convert(compiled(network())), MultigridCallback(SCHEDULE), backup, Die(after))
    model = SubBatchNormalization.convert(compiled(network()))
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=2)
    fit(model, MultigridCallback(SCHEDULE), backup)
    assert number(model.optimizer.iterations) == len(SCHEDULE)
    for a, b in zip(model.get_weights(), want.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@pytest.mark.parametrize("policy", [False, True])
def test_a_checkpoint_in_the_middle_of_an_epoch(tmp_path, policy):
    def lr():
        return keras.optimizers.schedules.CosineDecay(0.05, SCHEDULE.baseline_iterations) if policy else 0.05

    want = SubBatchNormalization.convert(compiled(network(), lr()))
    fit(want, MultigridCallback(SCHEDULE))
    path = tmp_path / "model.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_freq=5)
    model = SubBatchNormalization.convert(compiled(network(), lr()))
    with pytest.raises(Interrupt):
        fit(model, MultigridCallback(SCHEDULE), checkpoint, Die(7))
    model = keras.models.load_model(path)
    assert number(model.optimizer.iterations) == 5
    # The file has the user's own learning rate.
    if policy:
        assert model.optimizer.get_config()["learning_rate"] == keras.optimizers.schedules.serialize(lr())
    else:
        assert number(model.optimizer.learning_rate) == np.float32(0.05)
    fit(model, MultigridCallback(SCHEDULE), initial_epoch=5 // 4)
    assert number(model.optimizer.iterations) == len(SCHEDULE)
    for a, b in zip(model.get_weights(), want.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
