"""`resample(out=)` with the arrays of Keras' backends: what must never change is refused, and does not."""

import re

import keras
import numpy as np
import pytest
from toy import BACKEND

from pymultigrid import resample

VIDEO = np.full((4, 8, 8, 3), 200, "uint8")
SIZE = (2, 4, 4)
READ_ONLY = "out is read-only, or does not say that it is writable; pass an array that can be written"
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's tensors")


def zeros(dtype="float32"):
    return keras.ops.zeros((3, *SIZE), dtype)


def is_zero(tensor):
    return not keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")).any()


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch's tensors may be written")
@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
def test_an_array_that_never_changes(dtype):
    out = zeros(dtype)
    with pytest.raises(ValueError, match=re.escape(READ_ONLY)):
        resample(VIDEO, SIZE, out=out)
    assert is_zero(out)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch's tensors may be written")
def test_a_view_of_an_array_that_never_changes():
    out = zeros()
    view = np.asarray(out)
    assert np.shares_memory(view, np.asarray(out))
    with pytest.raises(ValueError, match=re.escape(READ_ONLY)):
        resample(VIDEO, SIZE, out=view)
    assert is_zero(out)


@on_tensorflow
def test_a_buffer_of_a_tensor():
    out = zeros()
    with pytest.raises(ValueError, match=re.escape(READ_ONLY)):
        resample(VIDEO, SIZE, out=memoryview(out))
    assert is_zero(out)


@on_tensorflow
def test_a_variable():
    import tensorflow as tf

    out = tf.Variable(zeros())
    with pytest.raises(TypeError, match="out is a ResourceVariable; pass an array: NumPy, or anything with __dlpack__"):
        resample(VIDEO, SIZE, out=out)
    assert is_zero(out)


@on_tensorflow
def test_a_symbolic_tensor():
    """Inside of a tf.function there is no memory yet."""
    import tensorflow as tf

    @tf.function
    def traced(symbol):
        with pytest.raises(TypeError, match="video is a SymbolicTensor; pass an array: NumPy, or"):
            resample(symbol, SIZE)
        with pytest.raises(TypeError, match="out is a SymbolicTensor; pass an array: NumPy, or"):
            resample(VIDEO, SIZE, out=symbol)
        return symbol

    traced(zeros())


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch's tensors may be written")
def test_a_tensor_that_may_be_written():
    out = zeros()
    assert resample(VIDEO, SIZE, out=out) is out
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(out), resample(VIDEO, SIZE))
