"""preflight: what it touches is as it was."""

import copy
import random
import re

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


@pytest.mark.filterwarnings("ignore:a training forward of a SubBatchNorm outside sub_batches")
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
        model, schedule = net(), plan(plan=Cycles(short=None), lr_scaling="none")
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


class Restless(nn.Module):
    """Changes itself in every forward, in each way that models do."""

    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Conv3d(3, 4, 3, padding=1), nn.Conv3d(3, 4, 3, padding=1)
        self.words = nn.Embedding(5, 8, max_norm=0.1)
        self.bank, self.history, self.counts = torch.zeros(4), [torch.zeros(1)], {"passes": 0}
        self.first_shape = None
        self.torch, self.numpy, self.python = torch.Generator(), np.random.default_rng(0), random.Random(0)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, clips):
        with torch.no_grad():
            for key, query in zip(self.key.parameters(), self.query.parameters(), strict=True):
                key.data.lerp_(query, 0.1)
            self.bank.add_(1)
            self.history[0].add_(1)
        self.history.append(clips.shape)
        self.counts["passes"] += 1
        self.first_shape = self.first_shape or clips.shape
        self.extra = clips.detach()
        self.frozen.requires_grad_(True)
        self.register_forward_hook(lambda *_: None)
        noise = torch.rand((), generator=self.torch) + self.numpy.random() + self.python.random()
        return self.query(clips) * self.key(clips).detach() * noise + self.words(torch.arange(5)).sum()

    def seen(self):
        plain = {n: v for n, v in vars(self).items() if not n.startswith("_") and n not in ("torch", "numpy", "python")}
        generators = self.torch.get_state(), self.numpy.bit_generator.state, self.python.getstate()
        return [plain, generators, len(self._forward_hooks), self.frozen.requires_grad]


def test_a_model_that_changes_itself_is_as_it_was():
    torch.manual_seed(0)
    model = Restless()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objects = [id(p) for p in model.parameters()], id(model.history), id(model.bank)
    before, seen = everything(model, optimizer), copy.deepcopy(model.seen())
    fly(model, plan())
    assert same(before, everything(model, optimizer))
    assert same(seen, model.seen())
    assert objects == ([id(p) for p in model.parameters()], id(model.history), id(model.bank))
    model(torch.rand(1, 3, 4, 8, 8))  # and it does change
    assert not same(seen, model.seen())
    assert not same(before, everything(model, optimizer))


def test_a_failure_leaves_a_model_that_changes_itself_as_it_was():
    model = Restless()
    model.query.register_forward_pre_hook(lambda _, args: args[0][:, :2])
    seen, state = copy.deepcopy(model.seen()), copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 2 channels"):
        fly(model, plan())
    assert same(seen, model.seen())
    assert same(state, model.state_dict())


def test_an_optimizer_inside_of_backward_does_not_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1))
    optimizers = {p: torch.optim.SGD([p], lr=0.1, momentum=0.9) for p in model.parameters()}

    def update(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    state = copy.deepcopy(model.state_dict())
    fly(model, plan())
    assert same(state, model.state_dict())
    assert not any(optimizer.state for optimizer in optimizers.values())
    model(torch.rand(1, 3, 4, 8, 8)).sum().backward()  # the hooks are there again
    assert not same(state, model.state_dict())
    assert all(optimizer.state for optimizer in optimizers.values())


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated")  # torch.distributed.optim uses it
def test_torchs_own_optimizers_in_backward_are_refused():
    from torch.distributed.optim import _apply_optimizer_in_backward

    model = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1))
    _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.1})
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=re.escape("parameter 0.weight has an optimizer that steps inside backward")):
        fly(model, plan())
    assert same(state, model.state_dict())


def test_a_lazy_model_is_refused_before_the_first_pass():
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.LazyConv3d(4, 1))
    with pytest.raises(ValueError, match=re.escape("is not built yet, layer 1 (LazyConv3d): a lazy layer")):
        fly(model, plan())
    assert model[1].has_uninitialized_params()


def test_reading_clips_leaves_the_random_states():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, sample):
            noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
            return noise * torch.zeros(3, *tuple(sample.step.shape)[1:])

    model = net()
    before = everything(model, torch.optim.SGD(model.parameters()))
    report = fly(model, plan(), dataset=Noisy())
    assert report.rows[0].read_seconds > 0
    assert same(before, everything(model, torch.optim.SGD(model.parameters())))
