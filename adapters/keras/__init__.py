"""pymultigrid for Keras 3.9 or newer, on any backend: data for `model.fit`, learning rate, sub-mini-batch batch norm.

What ``fit`` needs more than before is the data and one callback::

    schedule = Schedule(Shape(8, 8, 32, 32), samples=len(paths), epochs=20)
    dataset, test = (VideoDataset(*files, mean=0.45, std=0.225) for files in (train_files, test_files))
    multigrid = MultigridCallback(schedule)
    model.fit(
        dataset.training(multigrid),
        epochs=20,
        steps_per_epoch=math.ceil(len(schedule) / 20),
        shuffle=False,
        validation_data=test.evaluation(schedule.shape),
        callbacks=[multigrid],
    )
"""

try:
    import keras as _keras
except ModuleNotFoundError as error:
    if error.name == "keras":
        raise ImportError(
            "pymultigrid.keras needs Keras 3 and a backend of it; "
            "pip install pymultigrid[keras] tensorflow (or jax, or torch)"
        ) from error
    raise ImportError(
        f"pymultigrid.keras needs Keras' backend, and it is missing: {error}; pip install tensorflow, or jax or torch "
        "with its name in the environment variable KERAS_BACKEND"
    ) from error
if tuple(map(int, _keras.__version__.split(".")[:2])) < (3, 9):
    # Before, PyTorch's first mini-batch is lost, and float16 cannot resume.
    raise ImportError(f"pymultigrid.keras needs Keras 3.9 or newer, not {_keras.__version__}; pip install 'keras>=3.9'")

from pymultigrid._sample import Sample
from pymultigrid.keras._batch_norm import SubBatchNormalization
from pymultigrid.keras._batches import batches
from pymultigrid.keras._callback import MultigridCallback
from pymultigrid.keras._dataset import VideoDataset
from pymultigrid.keras._preflight import preflight
from pymultigrid.keras._scaled_lr import ScaledLR

__all__ = ["MultigridCallback", "Sample", "ScaledLR", "SubBatchNormalization", "VideoDataset", "batches", "preflight"]
