import functools
import pickle
import re

import pytest

from pymultigrid import Schedule, Shape, mini_batch

SCHEDULE = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10, lr_drops=(5,), processes=2)


def test_the_mini_batches_are_the_stream():
    positions = [sample.position for step in SCHEDULE for sample in mini_batch(SCHEDULE, step, seed=3)]
    assert positions == list(range(SCHEDULE.clips))
    first = [sample.index for step in SCHEDULE.epoch(0) for sample in mini_batch(SCHEDULE, step, seed=3)]
    assert sorted(first[:100]) == list(range(100))


def test_ranks_divide_a_mini_batch():
    for step in SCHEDULE:
        whole = mini_batch(SCHEDULE, step, seed=0)
        assert [s for rank in (0, 1) for s in mini_batch(SCHEDULE, step, seed=0, rank=rank)] == list(whole)
        assert len(whole) == 2 * step.shape.b


SAMPLE = mini_batch(SCHEDULE, SCHEDULE[0], seed=0)[0]


def test_a_sample_compares_as_its_index():
    index = SAMPLE.index
    assert SAMPLE == index != index + 1 != SAMPLE
    assert index - 1 < SAMPLE <= index < index + 0.5
    assert SAMPLE in (index, index + 1)
    assert SAMPLE > 0 and index <= SAMPLE and not SAMPLE < 0  # noqa: PT018
    assert sorted([100, SAMPLE, 0]) == [0, SAMPLE, 100]
    assert mini_batch(SCHEDULE, SCHEDULE[0], seed=1)[0] != SAMPLE
    assert SAMPLE == mini_batch(SCHEDULE, SCHEDULE[0], seed=0)[0] == pickle.loads(pickle.dumps(SAMPLE))
    with pytest.raises(ValueError, match=re.escape("made for samples=100, and the data set has at least 101 videos")):
        _ = SAMPLE < 101
    with pytest.raises(ValueError, match=re.escape("made for samples=100, and the data set has at least 101 videos")):
        _ = SAMPLE - 10 < 91


def test_a_sample_is_no_key():
    with pytest.raises(TypeError, match=re.escape("a Sample can't be a key: the same video is read again on")):
        {}.get(SAMPLE)
    with pytest.raises(TypeError, match=re.escape("a Sample can't be a key")):
        functools.cache(lambda sample: 0)(SAMPLE)


def test_a_sample_is_no_plain_number():
    said = "wrap it in one of your own, whose __getitem__(sample) takes item sample.index of it"
    with pytest.raises(TypeError, match=re.escape(said)):
        int(SAMPLE)
    with pytest.raises(TypeError, match=re.escape(said)):
        max(mini_batch(SCHEDULE, SCHEDULE[0], seed=0))
    datasets = pytest.importorskip("datasets", reason="datasets is missing: Hugging Face data sets are NOT tried")
    table = datasets.Dataset.from_dict({"number": list(range(100))})
    for form in (table, table.with_format("numpy"), table.with_transform(lambda row: row), table.shuffle(seed=0)):
        with pytest.raises(TypeError, match=re.escape(said)):
            form.__getitems__(mini_batch(SCHEDULE, SCHEDULE[0], seed=0))
        assert form[SAMPLE.index]["number"] < 100


@pytest.mark.parametrize(
    ("options", "short", "said"),
    [
        ({}, 15, "fewer than the clip's 16 frames x stride 1 = 16 of the full shape, which training reaches later"),
        (
            {"stride": 3},
            47,
            "fewer than the clip's 16 frames x stride 3 = 48 of the full shape, which training reaches",
        ),
        ({"segments": True}, 15, "fewer than the 16 segments of the full shape, which training reaches later"),
    ],
)
def test_a_short_video_is_refused_at_every_step(options, short, said):
    for step in list(SCHEDULE)[::9]:
        sample = mini_batch(SCHEDULE, step, seed=0)[0]
        assert sample.grid((short + 1, 60, 80), **options).t.size == step.shape.t
        with pytest.raises(ValueError, match=f"the video has {short} frames, fewer than the"):
            sample.grid((short, 60, 80), **options)
    assert SCHEDULE[0].shape.t < 15
    with pytest.raises(ValueError, match=re.escape(said)):
        SAMPLE.grid((short, 60, 80), **options)
    assert SAMPLE.grid((short, 60, 80), **options, beyond="clamp").t.size == SCHEDULE[0].shape.t


def test_a_seed_for_each_clip():
    seeds = {s.own_seed for step in SCHEDULE for s in mini_batch(SCHEDULE, step, seed=3)}
    assert len(seeds) == SCHEDULE.clips
    assert all(0 <= seed < 2**32 for seed in seeds)
    again = mini_batch(SCHEDULE[7:], SCHEDULE[7], seed=3)
    assert [s.own_seed for s in again] == [s.own_seed for s in mini_batch(SCHEDULE, SCHEDULE[7], seed=3)]


def test_refusals():
    with pytest.raises(ValueError, match=re.escape("seed (-1) must lie in [0, 2**64); take it modulo 2**64")):
        mini_batch(SCHEDULE, SCHEDULE[0], seed=-1)
    with pytest.raises(ValueError, match=re.escape("rank (2) must lie in [0, 2), the schedule's processes; build")):
        mini_batch(SCHEDULE, SCHEDULE[0], seed=0, rank=2)
    with pytest.raises(TypeError, match=re.escape("seed ('0') must be a whole number")):
        mini_batch(SCHEDULE, SCHEDULE[0], seed="0")
    uncounted = Schedule(Shape(4, 16, 112, 112), iterations=100)
    with pytest.raises(ValueError, match=re.escape("the schedule was made without samples=; pass the number of")):
        mini_batch(uncounted, uncounted[0], seed=0)
