"""Batch norm over sub-mini-batches, so that its statistics do not change with the long cycle's batch."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import keras
from keras import ops

Model = TypeVar("Model", bound=keras.layers.Layer)


@keras.saving.register_keras_serializable("pymultigrid")
class SubBatchNormalization(keras.layers.BatchNormalization):
    """``keras.layers.BatchNormalization`` whose training statistics are those of `splits` parts of the mini-batch.

    A coarse stage's mini-batch is up to 8 times larger. Normalised as a whole, its statistics would be less noisy than
    the baseline's, and that noise is part of the recipe. `MultigridCallback` sets `splits` while `fit` runs.

    >>> import keras
    >>> from pymultigrid.keras import SubBatchNormalization
    >>> net = keras.Sequential([keras.Input((None, None, None, 3)), keras.layers.BatchNormalization()])
    >>> layer = SubBatchNormalization.convert(net).layers[0]
    >>> layer.splits = 8
    >>> layer(keras.ops.ones((64, 8, 11, 11, 3)), training=True).shape == (64, 8, 11, 11, 3)
    True
    >>> [weight.name for weight in layer.weights]
    ['gamma', 'beta', 'moving_mean', 'moving_variance']

    The arguments, the weights and their order are Keras'; with ``splits == 1``, and in inference, so is the result.
    Each training call moves the moving statistics towards, over the sub-batches,

        mean = average of the means,   var = average of the variances + variance of the means

    (Keras' variances, divided by the count), which are those of the whole mini-batch: evaluation does not see the
    splits. Where `splits` does not divide the mini-batch, the first sub-batches have one clip more and each weighs by
    its clips.

    Notes
    -----
    Source: Wu et al. 2020, section 3.1; sub-batch s holds the clips i * splits + s, as in the authors' code. `splits`
    is a plain number that a traced function keeps: whoever changes it outside of `fit` has to trace again.
    """

    splits: int = 1
    """Sub-batches of the next training call. Neither a weight nor part of the configuration."""
    traced: int = 0
    """The value of `splits` in the last call that ran in Python; a trace that runs instead keeps that number."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not _plain(self):
            raise ValueError(
                "SubBatchNormalization takes neither synchronized=True nor renorm=True, which have their own "
                "statistics; leave them out, or keep keras.layers.BatchNormalization"
            )

    @classmethod
    def convert(cls, model: Model) -> Model:
        """Make every batch normalization in `model` a sub-batch one, in place, and return the model.

        The layers stay the same objects with the same weights, in any kind of model, built or not, so optimizers are
        not affected. Subclasses of Keras' layer and those with ``synchronized`` or ``renorm`` are left alone, and a
        warning names them. A saved model keeps the class; `revert` it first for a file that does not need pymultigrid.
        """
        for layer in model._flatten_layers():
            if cls.converts(layer):
                object.__setattr__(layer, "__class__", cls)
            elif isinstance(layer, keras.layers.BatchNormalization) and not isinstance(layer, cls):
                warnings.warn(
                    f"{layer.name} ({type(layer).__name__}) keeps the statistics of the whole mini-batch: convert "
                    "takes only keras.layers.BatchNormalization, without synchronized=True and renorm=True; if the "
                    "class is yours, derive it from SubBatchNormalization",
                    stacklevel=2,
                )
        return model

    @classmethod
    def converts(cls, layer: Any) -> bool:
        """Whether `convert` would make `layer` a sub-batch one."""
        return type(layer) is keras.layers.BatchNormalization and _plain(layer)

    @classmethod
    def revert(cls, model: Model) -> Model:
        """Undo `convert`, in place, and return the model; the moving statistics stay."""
        for layer in model._flatten_layers():
            if type(layer) is cls:
                for name in ("splits", "traced"):
                    layer.__dict__.pop(name, None)
                object.__setattr__(layer, "__class__", keras.layers.BatchNormalization)
        return model

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise B x ...; in training, each of `splits` sub-batches of the B clips with its own statistics."""
        object.__setattr__(self, "traced", self.splits)
        if not (training and self.trainable) or self.splits == 1:
            return super().call(inputs, training=training, mask=mask)
        if mask is not None:
            raise ValueError(
                f"{self.name} is called with a mask, which sub-batches do not take; leave the masking layer out, or "
                "keep keras.layers.BatchNormalization here"
            )
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        rank = len(x.shape)
        channel = self.axis % rank
        cells = [axis for axis in range(1, rank) if axis != channel]
        per_clip = [-1 if axis == 0 else x.shape[axis] if axis == channel else 1 for axis in range(rank)]
        sub_batch = self._sub_batches(x, cells)

        def average(values: Any) -> Any:
            """Average over the cells and the sub-batch, for each clip: B x C."""
            values = ops.mean(values, axis=cells) if cells else values
            count = ops.segment_sum(ops.ones_like(values), sub_batch, num_segments=self.splits)
            total = ops.segment_sum(values, sub_batch, num_segments=self.splits)
            return ops.take(total / ops.maximum(count, 1), sub_batch, axis=0)

        mean = average(x)
        centred = x - ops.reshape(mean, per_clip)
        var = average(ops.square(centred))
        self._track(mean, var)
        scale = ops.rsqrt(var + self.epsilon)
        if self.scale:
            scale = scale * ops.cast(self.gamma, x.dtype)
        out = centred * ops.reshape(scale, per_clip)
        if self.center:
            out = out + ops.reshape(ops.cast(self.beta, x.dtype), [1, *per_clip[1:]])
        return ops.cast(out, self.compute_dtype)

    def _sub_batches(self, x: Any, cells: list[int]) -> Any:
        """Return the sub-batch of each clip; if a clip has only one value, a sub-batch has at least two clips."""
        shape = ops.shape(x)
        clips, values = shape[0], 1
        for axis in cells:
            values = values * shape[axis]
        most = ops.where(values > 1, clips, ops.maximum(clips // 2, 1))
        return ops.arange(clips, dtype="int32") % ops.cast(ops.minimum(self.splits, most), "int32")

    def _track(self, mean: Any, var: Any) -> None:
        """Move the moving statistics towards those of the whole mini-batch, from each clip's sub-batch's, B x C."""
        whole = ops.mean(mean, axis=0)
        spread = ops.mean(var, axis=0) + ops.mean(ops.square(mean - whole), axis=0)
        for moving, value in ((self.moving_mean, whole), (self.moving_variance, spread)):
            value = ops.cast(value, moving.dtype)
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


def _plain(layer: Any) -> bool:
    return not (getattr(layer, "synchronized", False) or getattr(layer, "renorm", False))
