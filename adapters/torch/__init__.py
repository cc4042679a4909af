"""pymultigrid for PyTorch: sampler, data set, learning rate, sub-mini-batch BN and `resample` for tensors.

One loop uses them all; with ``lr = ScaledLR(any_scheduler, schedule)`` and a `VideoDataset`::

    for step, (clips, labels) in zip(schedule, DataLoader(dataset, batch_sampler=BatchSampler(schedule))):
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

from pymultigrid.torch.batch_norm import SubBatchNorm, SubBatchNorm1d, SubBatchNorm2d, SubBatchNorm3d, sub_batches
from pymultigrid.torch.dataset import VideoDataset, VideoViews
from pymultigrid.torch.decoded import DecodedClips
from pymultigrid.torch.evaluate import Evaluation, evaluate
from pymultigrid.torch.layer_errors import layer_errors
from pymultigrid.torch.position_embeddings import PositionEmbeddings
from pymultigrid.torch.preflight import preflight
from pymultigrid.torch.resample import resample
from pymultigrid.torch.sampler import BatchSampler
from pymultigrid.torch.scaled_lr import ScaledLR
from pymultigrid.torch.stream import StreamDataset

from pymultigrid._sample import Batch, Sample

__all__ = [
    "Batch",
    "BatchSampler",
    "DecodedClips",
    "Evaluation",
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
    "preflight",
    "resample",
    "sub_batches",
]
