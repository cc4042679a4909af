"""The policies: values that are checked where they are made."""

import copy
import math
import pickle
import re

import numpy as np
import pytest

from pymultigrid import LONG_CYCLE, SHORT_CYCLE, Cycles, Phases, Progressive, Shape

PLANS = [
    Cycles(),
    Cycles(long=[(0.5, 0.5, 0.25), (1, 1)], short=None, cycles=2, epoch_factor=1),
    Phases([(3, (4, 32, 32)), (0.5, Shape(2, 8, 64, 64))], short=[0.5]),
    Progressive(start=[0.5, 0.25], stages=3, full_from=0.5),
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_is_a_value(plan):
    for same in (eval(repr(plan)), copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert same == plan
        assert hash(same) == hash(plan)
    assert [other == plan for other in PLANS].count(True) == 1
    with pytest.raises(AttributeError):
        plan.short = None


def test_the_papers_plan_is_the_default():
    assert Cycles() == Cycles(long=LONG_CYCLE, short=SHORT_CYCLE, cycles=None, epoch_factor=None)
    assert repr(Cycles(long=None, short=[0.5], cycles=None)) == (
        "Cycles(long=None, short=(0.5,), cycles=None, epoch_factor=None)"
    )


def test_lists_and_arrays_are_kept_as_tuples():
    given = Cycles(long=np.array([(0.5, 0.5), (1, 1)]), short=np.array([0.5]), cycles=np.int64(2))
    assert given == Cycles(long=((0.5, 0.5), (1.0, 1.0)), short=(0.5,), cycles=2)
    assert type(given.cycles) is int
    assert Phases([(3, [4, 32, 32])]).phases == ((3.0, (4.0, 32.0, 32.0)),)
    assert Phases([(3, (4, 32, 32)), (0.5, Shape(2, 8, 64, 64))]).epochs == 3.5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Cycles(long=[(0.25, 1.5)]), ValueError, "long has the factor 1.5, which must lie in (0, 1]: a factor"),
        (lambda: Cycles(long=[(math.nan, 1)]), ValueError, "long has the factor nan, which must lie in (0, 1]"),
        (lambda: Cycles(long=[(0.25,)]), ValueError, "long has (0.25,); a factor is (temporal, spatial) or (t, h, w)"),
        (lambda: Cycles(long=()), ValueError, "long is empty; pass None to turn it off"),
        (lambda: Cycles(long=3), TypeError, "long (3) must be a sequence"),
        (lambda: Cycles(long=(0.5, 1)), TypeError, "long (0.5) must be a sequence of numbers"),
        (lambda: Cycles(long="ab"), TypeError, "long ('ab') must be a sequence"),
        (lambda: Cycles(short=(0,)), ValueError, "short has the factor 0, which must lie in (0, 1]"),
        (lambda: Cycles(short=()), ValueError, "short is empty; pass None to turn it off"),
        (lambda: Cycles(short=0.5), TypeError, "short (0.5) must be a sequence of numbers"),
        (lambda: Cycles(short="1"), TypeError, "short ('1') must be a sequence of numbers"),
        (lambda: Cycles(cycles=0), ValueError, "cycles (0) must be at least 1"),
        (lambda: Cycles(cycles=10**9), ValueError, "cycles (1000000000) must be at most 100000"),
        (lambda: Progressive(stages=10**9), ValueError, "stages (1000000000) must be at most 100000"),
        (lambda: Cycles(cycles=1.5), TypeError, "cycles (1.5) must be a whole number"),
        (
            lambda: Cycles(long=None, cycles=2),
            ValueError,
            "cycles (2) counts long cycles, and long is None; leave one of them out",
        ),
        (
            lambda: Cycles(epoch_factor=-1),
            ValueError,
            "epoch_factor (-1) must be above 0 and finite; the paper's is 1.5",
        ),
        (lambda: Cycles(epoch_factor=math.inf), ValueError, "epoch_factor (inf) must be above 0 and finite"),
        (lambda: Cycles(epoch_factor="1.5"), TypeError, "epoch_factor ('1.5') must be a number"),
        (lambda: Phases([]), ValueError, "phases is empty; pass at least one (epochs, shape)"),
        (lambda: Phases(3), TypeError, "phases (3) must be a sequence"),
        (lambda: Phases([8]), TypeError, "a phase (8) must be (epochs, shape) or (epochs, (t, h, w))"),
        (lambda: Phases([("3", (4, 32, 32))]), TypeError, "a phase's epochs ('3') must be a number"),
        (lambda: Phases([(0, (4, 32, 32))]), ValueError, "a phase lasts 0 epochs; it must be above 0 and finite"),
        (lambda: Phases([(1, (4, 32))]), ValueError, "a phase has (4.0, 32.0); pass a Shape, or (t, h, w)"),
        (lambda: Phases([(1, (4, 0, 32))]), ValueError, "a phase of 4x0x32 has the size 0, which must be above 0"),
        (lambda: Phases([(1, (4, 8, 8))], short=(2,)), ValueError, "short has the factor 2, which must lie in (0, 1]"),
        (lambda: Progressive(start=(2, 0.5)), ValueError, "start has the factor 2, which must lie in (0, 1]"),
        (lambda: Progressive(start=0.5), TypeError, "start (0.5) must be a sequence of numbers"),
        (lambda: Progressive(stages=1), ValueError, "stages (1) must be at least 2: the first at start, the last at"),
        (lambda: Progressive(full_from=1), ValueError, "full_from (1) must lie in (0, 1): the share before"),
        (lambda: Progressive(full_from="0.5"), TypeError, "full_from ('0.5') must be a number"),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
