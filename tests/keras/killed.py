"""A training that is killed in the middle of an epoch: python killed.py FOLDER STEP (-1: it is not)."""

import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np
from toy import SCHEDULE, compiled, fit, network, number

from pymultigrid.keras import MultigridCallback, SubBatchNormalization

SAVE_FREQ = 2


class Diary(keras.callbacks.Callback):
    """Write down the steps that were trained, and die after one of them."""

    def __init__(self, path, die):
        super().__init__()
        self.path, self.die = path, die

    def on_train_batch_end(self, batch, logs=None):
        index = int(number(self.model.optimizer.iterations)) - 1
        with self.path.open("a") as file:
            file.write(f"{index} {number(self.model.optimizer.learning_rate):.5f}\n")
        if index == self.die:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder, die=-1):
    """Train with a backup every second step; return the weights."""
    model = SubBatchNormalization.convert(compiled(network()))
    multigrid = MultigridCallback(SCHEDULE)
    backup = keras.callbacks.BackupAndRestore(folder / "backup", save_freq=SAVE_FREQ)
    fit(model, multigrid, backup, Diary(folder / "diary.txt", die))
    return model.get_weights()


if __name__ == "__main__":
    folder, die = Path(sys.argv[1]), int(sys.argv[2])
    np.savez(folder / "weights.npz", *train(folder, die))
