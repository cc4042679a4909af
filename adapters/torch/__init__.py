"""pymultigrid for PyTorch: sampler, data set, learning rate, sub-mini-batch BN and `resample` for tensors.

A loop that uses them all, with ``lr = ScaledLR(any_scheduler, schedule)`` and a `VideoDataset`::

    for step, (clips, labels) in Loader(dataset, schedule):
        with sub_batches(model, step):
            loss(model(clips), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        lr.step()
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("pymultigrid.torch needs PyTorch, which is missing; pip install pymultigrid[torch]") from error

from pymultigrid._sample import Batch, Sample
from pymultigrid.torch._batch_norm import SubBatchNorm, SubBatchNorm1d, SubBatchNorm2d, SubBatchNorm3d
from pymultigrid.torch._dataset import VideoDataset, VideoViews
from pymultigrid.torch._decoded import DecodedClips
from pymultigrid.torch._evaluate import Evaluation, evaluate
from pymultigrid.torch._layer_errors import layer_errors
from pymultigrid.torch._loader import Loader
from pymultigrid.torch._position_embeddings import PositionEmbeddings
from pymultigrid.torch._precise_bn import precise_bn
from pymultigrid.torch._preflight import preflight
from pymultigrid.torch._resample import resample
from pymultigrid.torch._sampler import BatchSampler
from pymultigrid.torch._scaled_lr import ScaledLR
from pymultigrid.torch._stream import StreamDataset
from pymultigrid.torch._sub_batches import sub_batches

__all__ = [
    "Batch",
    "BatchSampler",
    "DecodedClips",
    "Evaluation",
    "Loader",
    "PositionEmbeddings",
    "Sample",
    "ScaledLR",
    "StreamDataset",
    "SubBatchNorm",
    "SubBatchNorm1d",
    "SubBatchNorm2d",
    "SubBatchNorm3d",
    "VideoDataset",
    "VideoViews",
    "evaluate",
    "layer_errors",
    "precise_bn",
    "preflight",
    "resample",
    "sub_batches",
]
