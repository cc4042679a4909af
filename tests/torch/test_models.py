"""Convolutional models through every shape of a schedule, and errors that name the layer."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pymultigrid import Schedule, Shape
from pymultigrid.torch import SubBatchNorm, SubBatchNorm3d, layer_errors, sub_batches

# Both cycles; sizes 32, 48 and 64, frames 2, 4 and 8.
SCHEDULE = Schedule(
    Shape(2, 8, 64, 64), samples=100, epochs=10, multiple_of=16, frames_multiple_of=2, lr_scaling="none"
)
STEPS = [next(step for step in SCHEDULE if step.shape == shape) for shape in SCHEDULE.shapes]


def clips(step, most=4):
    """Random clips B x C x T x H x W of a step, few of them."""
    shape = step.shape
    return torch.randn(
        min(shape.b, most), 3, shape.t, shape.h, shape.w, generator=torch.Generator().manual_seed(step.index)
    )


def train(model, optimizer, step, x):
    """One training step; returns the loss."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), torch.arange(len(x)) % 5)
    loss.backward()
    optimizer.step()
    return loss


# -- convolutional nets ------------------------------------------------------------------------------------------------


def unit(cin, cout, kernel, stride=(1, 1, 1)):
    return nn.Sequential(
        nn.Conv3d(cin, cout, kernel, stride, [k // 2 for k in kernel], bias=False), nn.BatchNorm3d(cout)
    )


class Residual(nn.Module):
    """A basic block; factored = (2+1)D."""

    def __init__(self, cin, cout, stride, factored=False):
        super().__init__()
        first = [unit(cin, cout, (3, 3, 3), stride)]
        if factored:
            t, h, w = stride
            first = [unit(cin, cout, (1, 3, 3), (1, h, w)), nn.ReLU(), unit(cout, cout, (3, 1, 1), (t, 1, 1))]
        self.body = nn.Sequential(*first, nn.ReLU(), unit(cout, cout, (3, 3, 3)))
        self.short = unit(cin, cout, (1, 1, 1), stride)

    def forward(self, x):
        return F.relu(self.body(x) + self.short(x))


def resnet(factored=False):
    """r3d_18 or r2plus1d_18, small."""
    return nn.Sequential(
        unit(3, 8, (3, 7, 7), (1, 2, 2)),
        nn.ReLU(),
        Residual(8, 8, (1, 1, 1), factored),
        Residual(8, 16, (2, 2, 2), factored),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


class SlowFast(nn.Module):
    """Two pathways over the same clip: every fourth frame with many channels, all frames with few; lateral fusion."""

    def __init__(self):
        super().__init__()
        self.slow, self.fast = unit(3, 16, (1, 7, 7), (1, 2, 2)), unit(3, 4, (5, 7, 7), (1, 2, 2))
        self.lateral = nn.Conv3d(4, 8, (5, 1, 1), (4, 1, 1), (2, 0, 0))
        self.slow2, self.fast2 = Residual(24, 16, (1, 2, 2)), Residual(4, 4, (1, 2, 2))
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        slow, fast = F.relu(self.slow(x[:, :, ::4])), F.relu(self.fast(x))
        slow = torch.cat([slow, self.lateral(fast)], 1)
        return self.head(torch.cat([self.slow2(slow).mean((2, 3, 4)), self.fast2(fast).mean((2, 3, 4))], 1))


NETS = {"r3d": resnet, "r2plus1d": lambda: resnet(factored=True), "slowfast": SlowFast}


@pytest.mark.parametrize("net", NETS)
def test_convolutional_nets_train_at_every_shape(net):
    torch.manual_seed(0)
    model = NETS[net]()
    keys = list(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    SubBatchNorm3d.convert(model)
    assert not any(type(module) is nn.BatchNorm3d for module in model.modules())
    first = [id(p) for p in model.parameters()]
    for step in STEPS:
        x = clips(step, most=step.shape.b)
        with sub_batches(model, step) as splits:
            assert train(model, optimizer, step, x).isfinite()
        assert splits == max(1, step.base.b // 8)
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == first
    model.eval()
    full = torch.randn(2, 3, 8, 64, 64)
    plain = SubBatchNorm3d.revert(copy.deepcopy(model))
    assert torch.equal(model(full), plain(full))


def imported(name):
    """A library that has to be loaded beside this torch build; where it is broken it raises all sorts of things."""
    try:
        return __import__(name)
    except Exception as error:
        pytest.skip(f"{name} does not import here ({error!r:.80}): its models were NOT run")


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "mc3_18"])
def test_torchvision(name):
    imported("torchvision")
    from torchvision.models import video

    model = SubBatchNorm3d.convert(getattr(video, name)(num_classes=5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    assert any(isinstance(module, SubBatchNorm) for module in model.modules())
    for step in (STEPS[0], STEPS[-1]):
        with sub_batches(model, step):
            train(model, optimizer, step, clips(step, most=16))


# -- errors ------------------------------------------------------------------------------------------------------------


def test_the_layer_that_cannot_take_a_shape_is_named():
    model = resnet()
    model[4] = nn.AvgPool3d((4, 8, 8))
    model[6] = nn.Linear(16 * 4, 5)
    step = STEPS[0]
    with (
        pytest.raises(ValueError, match=re.escape("model (Sequential), layer 4 (AvgPool3d) can't take 4x16x2x")) as got,
        layer_errors(model),
    ):
        model(clips(step))
    assert isinstance(got.value.__cause__, RuntimeError)
    assert "keep sizes that the model's strides divide with multiple_of=" in str(got.value)


def test_the_innermost_layer_also_where_another_error_was_caught():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.other = nn.Linear(4, 4), nn.Linear(2, 2)

        def forward(self, x):
            try:
                return self.inner(x)
            except RuntimeError:
                return self.other(x)

    model = nn.ModuleDict({"careful": Careful(), "last": nn.Linear(3, 1)})
    with layer_errors(model):
        model["careful"](torch.zeros(1, 2))
        with pytest.raises(RuntimeError):
            model["last"](torch.zeros(1, 2))
    with pytest.raises(ValueError, match=re.escape("layer careful.other (Linear) can't take 1x3")), layer_errors(model):
        model["careful"](torch.zeros(1, 3))
    with pytest.raises(ZeroDivisionError), layer_errors(model):
        model["careful"](torch.zeros(1, 2)).sum() / (1 / 0)
    with pytest.raises(ValueError, match=re.escape("layer careful.other (Linear) can't take 1x3")), layer_errors(model):
        checkpoint(model["careful"], torch.zeros(1, 3), use_reentrant=False)


class Masked(nn.Module):
    def forward(self, x, mask):
        return x * mask


class Lost(nn.Module):
    def forward(self, x):
        return {}[len(x)]


@pytest.mark.parametrize(
    ("layer", "advice"),
    [
        (nn.Conv3d(5, 2, 1), "In preflight channels= is their number"),
        (nn.BatchNorm3d(5), "the layer takes another number of channels"),
        (nn.Conv3d(4, 2, 1), "a model of B x T x C x H x W takes clips.transpose(1, 2)"),
        (nn.Conv3d(3, 2, 1).bfloat16(), "in preflight dtype= is theirs, and autocast belongs in loss="),
        (nn.Linear(8, 2).bfloat16(), "clips and weights are of different dtypes"),
        (nn.Conv2d(3, 2, 1), "a model of images takes clips.transpose(1, 2).flatten(0, 1)"),
        (nn.BatchNorm2d(3), "the layer takes inputs of another number of axes"),
        (Masked(), "in preflight loss= calls it, with all its inputs"),
        (nn.Conv3d(3, 2, 9), "keep sizes that the model's strides divide with multiple_of="),
        (nn.Linear(9, 2), "fit position embeddings with PositionEmbeddings"),
        (Lost(), None),
    ],
)
def test_the_advice_fits_the_error(layer, advice):
    model = nn.Sequential(nn.Identity(), layer)
    failed = re.escape(f"layer 1 ({type(layer).__name__}) can't take 2x3x4x8x8: ")
    with pytest.raises(ValueError, match=failed) as got, layer_errors(model):
        model(torch.zeros(2, 3, 4, 8, 8))
    if advice is None:
        assert str(got.value).endswith("can't take 2x3x4x8x8: 2")
    else:
        assert advice in str(got.value)
        assert ("PositionEmbeddings" in str(got.value)) == ("multiple_of" in advice or "PositionEmb" in advice)


def test_an_error_of_memory_comes_through():
    model = nn.Sequential(nn.Upsample(size=2**46))
    with pytest.raises(RuntimeError, match="can't allocate memory"), layer_errors(model):
        model(torch.zeros(1, 1, 1))
