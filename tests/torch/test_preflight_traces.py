"""preflight: what it touches is as it was."""

import copy
import random

import numpy as np
import pytest
import torch
from test_preflight import fly, net, plan
from torch import nn

from pymultigrid import Cycles
from pymultigrid.torch import sub_batches


class Counting(nn.Flatten):
    """Flattens, counts its passes, and puts another tensor in the place of a buffer."""

    def __init__(self):
        super().__init__()
        self.passes = 0
        self.register_buffer("last", torch.zeros(1))

    def forward(self, input):
        self.passes += 1
        self.last = input.detach().mean()
        return super().forward(input)


def everything(model, optimizer):
    """All that preflight may not change, as copies."""
    return copy.deepcopy(
        {
            "state": model.state_dict(),
            "buffers": [list(m._buffers.items()) for m in model.modules()],
            "gradients": [p.grad for p in model.parameters()],
            "needed": [p.requires_grad for p in model.parameters()],
            "modes": [m.training for m in model.modules()],
            "counters": [(getattr(m, "splits", None), getattr(m, "passes", None)) for m in model.modules()],
            "hooks": [len(m._forward_hooks) for m in model.modules()],
            "optimizer": optimizer.state_dict(),
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state()[1],  # noqa: NPY002, the global one
            "python": random.getstate(),
        }
    )


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def noisy(model, clips):
    """A loss that draws from every random state there is."""
    noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
    return model(clips).square().mean() * noise


@pytest.mark.parametrize("training", [True, False])
def test_everything_is_as_it_was(training):
    model = net()
    model[7] = Counting()
    model[4].eval()  # a frozen batch norm in a model that trains
    model[0].bias.requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters())
    with sub_batches(model, plan()[-1]):
        model(torch.rand(4, 3, 8, 32, 32)).sum().backward()
    optimizer.step()
    model[9].weight.grad = None
    if not training:
        model.eval()
    before, gradients = everything(model, optimizer), [p.grad for p in model.parameters()]
    buffers = list(model.buffers())
    frozen = []
    model[4].register_forward_pre_hook(lambda module, _: frozen.append(module.training))
    fly(model, plan(), noisy)
    assert set(frozen) == {not training}
    assert same(before, everything(model, optimizer))
    assert all(was is p.grad for was, p in zip(gradients, model.parameters(), strict=True))
    assert all(was is b for was, b in zip(buffers, model.buffers(), strict=True))


def test_training_goes_on_to_the_bit():
    def losses(look):
        model, schedule = net(), plan(plan=Cycles(short=None))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        out = []
        for i, step in enumerate(schedule[:6]):
            if look and i in (0, 3):
                fly(model, schedule)
            with sub_batches(model, step):
                loss = noisy(model, torch.rand(step.shape.b, 3, *tuple(step.shape)[1:]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            out.append(loss.item())
        return out

    assert losses(look=True) == losses(look=False)


def test_a_failure_names_the_shape_and_leaves_all_as_it_was():
    class Fixed(nn.Module):
        """Takes the full shape alone in training."""

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm3d(3)
            self.head = nn.Linear(3 * 8 * 32 * 32, 2)

        def forward(self, clips):
            return self.head(self.norm(clips).flatten(1))

    model = Fixed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = everything(model, optimizer)
    named = (
        r"the mini-batch \d+x\d+x\d+x\d+ failed: model \(Fixed\), layer head \(Linear\) can't take 2x\d+: mat1 and mat2"
    )
    with pytest.raises(RuntimeError, match=named):
        fly(model, plan())
    assert same(before, everything(model, optimizer))
