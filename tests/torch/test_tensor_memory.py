"""Tensors whose memory is not what it seems: negated when it is read, freed, or not there at all."""

import re

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import pymultigrid
from pymultigrid.torch import resample

SIZE = (2, 4, 4)
# What torch itself says when it is asked for a fake tensor's memory.
UNASKED = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
BOTH = pytest.mark.parametrize("resample", [resample, pymultigrid.resample], ids=["adapter", "core"])


def ones():
    return torch.ones(4, 8, 8, 3)


def negative(*shape):
    """The imaginary part of a conjugate: 2 in memory, -2 by a flag beside it."""
    view = torch.full(shape, 2j, dtype=torch.complex64).conj().imag
    assert view.is_neg()
    assert (view == -2).all()
    return view


def freed(*shape):
    tensor = torch.zeros(shape)
    tensor.untyped_storage().resize_(0)
    return tensor


def fake(*shape):
    with FakeTensorMode():
        return torch.ones(shape)


@BOTH
def test_a_negated_video(resample):
    video = negative(4, 8, 8, 3)
    with pytest.raises(ValueError, match=r"^video is a view that negates its memory when it is read.*resolve_neg\(\)$"):
        resample(video, SIZE)
    with pytest.raises(ValueError, match=r"^videos\[1\] is a view that negates its memory"):
        resample([ones(), video], SIZE)
    assert (torch.as_tensor(resample(video.resolve_neg(), SIZE)) == -2).all()


@BOTH
def test_a_negated_output(resample):
    out = negative(3, *SIZE)
    with pytest.raises(ValueError, match=r"^out is a view that negates its memory when it is read.*resolve_neg\(\)$"):
        resample(ones(), SIZE, out=out)
    assert (out == -2).all()


def test_a_conjugate():
    conjugate = torch.full((4, 8, 8, 3), 2j, dtype=torch.complex64).conj()
    with pytest.raises(TypeError, match=re.escape("video has dtype torch.complex64; it must be one of")):
        resample(conjugate, SIZE)
    with pytest.raises(
        ValueError, match=r"^video is a view that negates its memory when it is read \(is_conj\); resolve"
    ):
        pymultigrid.resample(conjugate, SIZE)


@BOTH
def test_a_freed_video(resample):
    """As FSDP leaves its parameters between two uses; with memory again it is a video again."""
    video = freed(4, 8, 8, 3)
    with pytest.raises(ValueError, match=r"^video has no memory behind it: its storage was freed"):
        resample(video, SIZE)
    with pytest.raises(ValueError, match=r"^videos\[1\] has no memory behind it"):
        resample([ones(), video], SIZE)
    video.untyped_storage().resize_(4 * video.numel())
    assert (torch.as_tensor(resample(video.fill_(3), SIZE)) == 3).all()


@BOTH
def test_a_freed_output(resample):
    with pytest.raises(ValueError, match=r"^out has no memory behind it: its storage was freed"):
        resample(ones(), SIZE, out=freed(3, *SIZE))


@pytest.mark.parametrize("part", [slice(None), slice(2, None), (slice(None), slice(None, None, 2))])
def test_a_storage_that_was_made_smaller(part):
    video = ones()
    storage = video.untyped_storage()
    view = video[part]
    assert (resample(view, SIZE) == 1).all()
    last = 1 + view.storage_offset() + sum((n - 1) * pitch for n, pitch in zip(view.shape, view.stride(), strict=True))
    storage.resize_(4 * last)  # what the view reaches, to the byte
    assert (resample(view, SIZE) == 1).all()
    storage.resize_(4 * last - 1)
    with pytest.raises(ValueError, match="its storage was freed or made smaller"):
        resample(view, SIZE)


@UNASKED
def test_a_fake_video():
    """Tracing has shapes alone: the adapter's operator gives one, and the core has nothing to read."""
    clip = resample(fake(4, 8, 8, 3), SIZE)
    assert type(clip).__name__ == "FakeTensor"
    assert clip.shape == (3, *SIZE)
    with pytest.raises(ValueError, match=r"^video has no memory behind it: its storage was freed"):
        pymultigrid.resample(fake(4, 8, 8, 3), SIZE)


@UNASKED
@BOTH
def test_a_fake_output(resample):
    with pytest.raises(ValueError, match=r"^out has no memory behind it: its storage was freed"):
        resample(ones(), SIZE, out=fake(3, *SIZE))


def test_a_tensor_that_requires_grad():
    video = ones().requires_grad_()
    with pytest.raises(RuntimeError, match=re.escape("video requires grad and resample has no backward; pass video.")):
        resample(video, SIZE)
    with pytest.raises(BufferError, match="Can't export tensors that require gradient"):
        pymultigrid.resample(video, SIZE)
    np.testing.assert_array_equal(resample(video.detach(), SIZE).numpy(), 1)
