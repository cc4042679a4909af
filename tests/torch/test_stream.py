import io
import re
import secrets
import tarfile

import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]")

import mp4
from torch.utils.data import DataLoader, IterableDataset

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid.torch import BatchSampler, StreamDataset
from pymultigrid.video import Video

VIDEOS = 12
SCHEDULE = Schedule(Shape(2, 8, 32, 32), samples=VIDEOS, epochs=8, lr_drops=(4,))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """(bytes of a file, its number); their sizes and lengths differ."""
    root = tmp_path_factory.mktemp("videos")
    sizes = [{"frames": 20 + i, "height": 48 + 4 * (i % 3)} for i in range(VIDEOS)]
    return [(mp4.write(root / f"{i}.mp4", **size).read_bytes(), i) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def shards(videos, tmp_path_factory):
    """Four tar files of three videos each, as WebDataset wants them."""
    root = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        with tarfile.open(root / f"{shard}.tar", "w") as tar:
            for data, number in videos[shard::4]:
                for name, content in ((f"{number:03}.mp4", data), (f"{number:03}.cls", str(number).encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return sorted(map(str, root.glob("*.tar")))


def read(item, sample):
    """What a batch holds of an item: the clip, which video it is, and its position in the stream."""
    data, number = item
    video = Video(data)
    return video.clip(sample.grid(video.extent, stride=2, beyond="loop"), std=0.5), number, sample.position


def read_fields(item, sample):
    return read((item["mp4"], int(item["cls"])), sample)


def place(item, sample):
    return item, sample.position, sample.index


def batches(dataset, **options):
    return list(DataLoader(dataset, batch_size=None, **options))


def check_steps(schedule, loader):
    """Every step at its shape and in its place, on the very grids of the schedule's stream; gives the videos seen."""
    seen = []
    for step, (clips, numbers, positions) in zip(schedule, loader, strict=True):
        assert clips.shape == (step.shape.b, 3, step.shape.t, step.shape.h, step.shape.w)
        assert positions.tolist() == list(range(step.first, step.first + step.shape.b))
        seen += numbers.tolist()
    return seen


def test_a_list_of_files(videos):
    loader = DataLoader(StreamDataset(videos, SCHEDULE, read, seed=3), batch_size=None)
    assert len(loader) == len(SCHEDULE)
    seen = check_steps(SCHEDULE, loader)
    assert seen == [i % VIDEOS for i in range(len(seen))]


def test_the_clip_is_the_one_of_a_batch_sampler(videos):
    """The same video at the same position of the stream is read on the same grid."""
    step, (clips, numbers, _) = SCHEDULE[0], next(iter(StreamDataset(videos, SCHEDULE, read, seed=3)))
    for clip, number, sample in zip(clips, numbers.tolist(), next(iter(BatchSampler(SCHEDULE, seed=3))), strict=True):
        video = Video(videos[number][0])
        want = video.clip(sample.grid(video.extent, stride=2, beyond="loop"), std=0.5)
        assert torch.equal(clip, torch.from_numpy(want))
    assert len(clips) == step.shape.b


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_steps_are_in_order_for_any_number_of_workers(workers):
    """Worker w makes the steps w, w + n, ... of the items w, w + n, ...; n that divides nothing among them."""
    schedule = SCHEDULE[: 4 * workers + 3]
    source = list(range(100, 117))
    got = batches(StreamDataset(source, schedule, place), num_workers=workers)
    assert len(got) == len(schedule)
    taken = [0] * workers
    for i, (step, (items, positions, indices)) in enumerate(zip(schedule, got, strict=True)):
        worker = i % workers
        mine = source[worker::workers]
        b = step.shape.b
        assert items.tolist() == [mine[(taken[worker] + k) % len(mine)] for k in range(b)]
        assert positions.tolist() == list(range(step.first, step.first + b))
        assert indices.tolist() == b * [-1]
        taken[worker] += b


def test_workers_that_are_not_forked_and_stay(videos):
    schedule = SCHEDULE[:5]
    dataset = StreamDataset(videos, schedule, read, seed=1)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn", persistent_workers=True
    )
    first = check_steps(schedule, loader)
    assert check_steps(schedule, loader) == first  # and once more, by the same workers


def test_ranks_with_different_data_agree_on_every_step():
    schedule = Schedule(Shape(2, 8, 32, 32), samples=50, epochs=4, processes=2)
    ranks = [
        batches(StreamDataset(range(size), schedule, place, rank=rank), num_workers=rank)
        for rank, size in enumerate((3, 50))
    ]
    for step, (_, a, _), (_, b, _) in zip(schedule, *ranks, strict=True):
        assert a.tolist() + b.tolist() == list(range(step.first, step.first + 2 * step.shape.b))


def test_accumulation():
    schedule = Schedule(Shape(2, 8, 32, 32), samples=50, epochs=4, processes=3)
    loader = DataLoader(StreamDataset(range(50), schedule, place, accumulate=3), batch_size=None, num_workers=2)
    assert len(loader) == 3 * len(schedule)
    micro = iter(loader)
    for step in schedule:
        positions = [p for _ in range(3) for p in next(micro)[1].tolist()]
        assert positions == list(range(step.first, step.first + 3 * step.shape.b))
    assert next(micro, None) is None


def test_resuming_is_slicing():
    whole = batches(StreamDataset(range(50), SCHEDULE, place))
    rest = batches(StreamDataset(range(50), SCHEDULE[7:], place), num_workers=2)
    assert [b[1].tolist() for b in rest] == [b[1].tolist() for b in whole[7:]]


def test_a_schedule_without_samples():
    schedule = Schedule(Shape(2, 8, 32, 32), iterations=20)
    assert len(batches(StreamDataset(range(7), schedule, place))) == len(schedule)


def test_a_collation_of_your_own():
    got = batches(StreamDataset(range(7), SCHEDULE[:3], place, collate=tuple), num_workers=1)
    assert got[0][0] == [0, 0, -1]
    assert [len(batch) for batch in got] == [step.shape.b for step in SCHEDULE[:3]]


# -- sources people have -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
@pytest.mark.parametrize("workers", [0, 2])
def test_webdataset(shards, workers):
    wds = pytest.importorskip("webdataset", reason="WebDataset is missing: streams of tar files were NOT tested")
    source = wds.WebDataset(shards, shardshuffle=False)
    loader = DataLoader(StreamDataset(source, SCHEDULE, read_fields), batch_size=None, num_workers=workers)
    seen = check_steps(SCHEDULE, loader)
    assert set(seen) == set(range(VIDEOS))
    if workers == 0:
        assert len(set(seen[:VIDEOS])) == VIDEOS


class Files(IterableDataset):
    """A source that divides itself, by torch's own contract."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        yield from range(0 if worker is None else worker.id, 12, 1 if worker is None else worker.num_workers)


def test_a_source_that_divides_itself_is_not_divided_again():
    """Both workers together give every item once before any comes again."""
    schedule = Schedule(Shape(1, 8, 32, 32), iterations=12, plan=Cycles(long=None, short=None))
    got = batches(StreamDataset(Files(), schedule, place), num_workers=2)
    assert [items.item() for items, _, _ in got] == list(range(12))


def rows(numbers):
    """Items of a Hugging Face data set; one shard for each of `numbers`."""
    for number in numbers:
        yield {"number": number}


@pytest.mark.parametrize("workers", [0, 2])
def test_hugging_face(videos, workers):
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is missing: its streams were NOT tested")
    table = datasets.Dataset.from_dict({"mp4": [v[0] for v in videos], "cls": [v[1] for v in videos]})
    source = table.to_iterable_dataset(num_shards=4)
    loader = DataLoader(StreamDataset(source, SCHEDULE[:9], read_fields), batch_size=None, num_workers=workers)
    seen = check_steps(SCHEDULE[:9], loader)
    assert set(seen) == set(range(VIDEOS))


def test_hugging_face_with_too_few_shards():
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is missing: its streams were NOT tested")
    source = datasets.IterableDataset.from_generator(rows, gen_kwargs={"numbers": [1]})
    dataset = StreamDataset(source, SCHEDULE, place)
    with pytest.raises(
        ValueError, match=re.escape("source has no item for worker 1 of 2; pass one with more items (or sh")
    ):
        batches(dataset, num_workers=2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # Ray's own
def test_ray_data(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is missing: streams of Ray Data were NOT tested")
    # Ray would leave a token in the home folder.
    (tmp_path / "token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        source = ray.data.from_items([{"number": i} for i in range(VIDEOS)]).iterator().iter_rows()
        dataset = StreamDataset(source, SCHEDULE[:9], lambda item, sample: (item["number"], sample.position))
        seen = set()
        for step, (numbers, positions) in zip(SCHEDULE[:9], DataLoader(dataset, batch_size=None), strict=True):
            assert positions.tolist() == list(range(step.first, step.first + step.shape.b))
            seen |= set(numbers.tolist())
        assert seen == set(range(VIDEOS))
    finally:
        ray.shutdown()


# -- errors ------------------------------------------------------------------------------------------------------------


def test_bad_arguments():
    with pytest.raises(TypeError, match=re.escape("source is a generator, which can be read once only, and a source")):
        StreamDataset((i for i in range(3)), SCHEDULE, place)
    with pytest.raises(TypeError, match=re.escape("source is a int, which can't be iterated; a data set of numbered")):
        StreamDataset(3, SCHEDULE, place)
    with pytest.raises(TypeError, match=re.escape("read (None) must be a function")):
        StreamDataset([1], SCHEDULE, None)
    with pytest.raises(TypeError, match=re.escape("collate (3) must be a function")):
        StreamDataset([1], SCHEDULE, place, collate=3)
    with pytest.raises(TypeError, match=re.escape("must be a pymultigrid.Schedule")):
        StreamDataset([1], [1, 2], place)
    with pytest.raises(ValueError, match=re.escape("rank (1) must lie in [0, 1)")):
        StreamDataset([1], SCHEDULE, place, rank=1)
    with pytest.raises(ValueError, match=re.escape("seed (-1) must lie in [0, 2**64)")):
        StreamDataset([1], SCHEDULE, place, seed=-1)


def test_an_empty_source():
    with pytest.raises(ValueError, match=re.escape("source has no item for anyone; pass one with more items")):
        batches(StreamDataset([], SCHEDULE, place))
    with pytest.raises(
        ValueError, match=re.escape("source has no item for worker 1 of 2; pass one with more items (or sha")
    ):
        batches(StreamDataset(["one"], SCHEDULE, place), num_workers=2)


# -- passes ------------------------------------------------------------------------------------------------------------


class Shuffled(IterableDataset):
    """A source that shuffles by the pass it is told of, as Hugging Face's do."""

    def __init__(self):
        self.passes = [0]

    def set_epoch(self, number):
        self.passes.append(number)

    def __iter__(self):
        return iter(torch.randperm(VIDEOS, generator=torch.Generator().manual_seed(self.passes[-1])).tolist())


def test_a_source_is_told_its_pass():
    source = Shuffled()
    dataset = StreamDataset(source, SCHEDULE, place)
    passes = orders(batches(dataset))
    assert source.passes[1:] == list(range(len(source.passes) - 1))
    assert len(source.passes) > len(passes) > 10
    assert len(set(passes)) > len(passes) - 2
    start = next(step for step in SCHEDULE if step.first >= 5 * VIDEOS)
    resumed = Shuffled()
    next(iter(StreamDataset(resumed, SCHEDULE[start.index :], place)))
    assert resumed.passes[1] == start.first // VIDEOS == 5


def orders(found):
    """The order of each whole pass, in which every item comes once."""
    items = [int(item) for batch in found for item in batch[0]]
    passes = [tuple(items[at : at + VIDEOS]) for at in range(0, len(items) - VIDEOS + 1, VIDEOS)]
    assert all(sorted(each) == list(range(VIDEOS)) for each in passes)
    return passes


def numbers_of(shards):
    for shard in shards:
        yield from ({"number": 3 * shard + n} for n in range(3))


def number(item, sample):
    return item["number"], sample.position


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shuffled_stream_of_hugging_face_has_another_order_in_each_pass(workers):
    datasets = pytest.importorskip("datasets", reason="datasets is missing: shuffled streams of it were NOT tested")
    source = datasets.IterableDataset.from_generator(numbers_of, gen_kwargs={"shards": list(range(4))})
    source = source.shuffle(seed=1, buffer_size=5)
    found = batches(StreamDataset(source, SCHEDULE, number), num_workers=workers)
    if not workers:
        passes = orders(found)
        assert len(set(passes)) > len(passes) - 2
    again = batches(StreamDataset(source, SCHEDULE, number), num_workers=workers)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found, again, strict=True))
    assert len({tuple(batch[0].tolist()) for batch in found}) > len(found) / 2


def test_nodes_of_torchdata():
    nodes = pytest.importorskip("torchdata.nodes", reason="torchdata is missing: its nodes were NOT tested")
    sampler = torch.utils.data.RandomSampler(range(VIDEOS), generator=torch.Generator().manual_seed(0))
    source = nodes.Loader(nodes.MapStyleWrapper({n: n for n in range(VIDEOS)}, sampler))
    passes = orders(batches(StreamDataset(source, SCHEDULE, place)))
    assert len(set(passes)) > len(passes) - 2


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_a_shuffled_web_dataset_has_another_order_in_each_pass(shards):
    wds = pytest.importorskip("webdataset", reason="webdataset is missing: shuffled streams of it were NOT tested")
    source = wds.WebDataset(shards, shardshuffle=4).shuffle(6)
    dataset = StreamDataset(source, SCHEDULE, lambda item, sample: (int(item["cls"]), sample.position))
    passes = orders(batches(dataset))
    assert len(set(passes)) > len(passes) - 2
