"""Adaptive optimizers on a schedule that scales rates as SGD's are scaled."""

import warnings

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid.torch import ScaledLR

WEIGHTS = [torch.nn.Parameter(torch.zeros(1))]


class FusedAdam(torch.optim.SGD):
    """An optimizer that only its name tells."""


def scaled(kind, **options):
    schedule = Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10, **options)
    return ScaledLR(ConstantLR(kind(WEIGHTS, lr=0.1), 1), schedule)


@pytest.mark.parametrize(
    "kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RAdam, torch.optim.RMSprop, FusedAdam]
)
def test_with_the_linear_rule_are_warned_of(kind):
    message = f"{kind.__name__} would train batches 8 times as large at 8 times the rate.*square root, 2.8 times"
    with pytest.warns(RuntimeWarning, match=message):
        assert scaled(kind).get_last_lr() == [pytest.approx(0.8)]  # and nothing is changed


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {}),
        (torch.optim.AdamW, {"lr_scaling": "sqrt"}),
        (torch.optim.AdamW, {"lr_scaling": "none"}),
        (torch.optim.AdamW, {"batch_growth": 0}),
        (torch.optim.AdamW, {"plan": Cycles(long=None)}),
    ],
)
def test_what_is_scaled_as_it_should_be_is_left_alone(kind, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled(kind, **options)
