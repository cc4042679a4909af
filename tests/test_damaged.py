"""A data set with damaged videos: told, skipped or used."""

import pickle
import re

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is missing: damaged videos are NOT tested; pip install pymultigrid[video]")

import av
import mp4

from pymultigrid import Schedule, Shape, mini_batch
from pymultigrid._files import VideoFiles, Views
from pymultigrid.video import DamagedVideo

COUNT, CUT, HURT = 24, 5, 11  # of the videos one is cut short, and one is damaged in its last quarter
SCHEDULE = Schedule(Shape(3, 8, 32, 32), samples=COUNT, epochs=4)
SAID = "other videos are read in place of damaged clips"


def hurt(path):
    """Overwrite part of the last quarter's packets, the key frame included."""
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[36:]:
        data[packet.pos + packet.size // 2 : packet.pos + packet.size] = b"\xff" * (packet.size - packet.size // 2)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("damaged")
    made = [mp4.write(root / f"{n:02}.mp4", frames=48, gop=12, b_frames=0, tint=5 * n) for n in range(COUNT)]
    whole = made[CUT].read_bytes()
    made[CUT].write_bytes(whole[: len(whole) // 2])
    hurt(made[HURT])
    return made


def read(files, batches):
    """What was read for each sample: by its position, which video and which pixels."""
    found = {}
    for batch in batches:
        for place, video, pixels, grid in files.decoded(batch):
            found[batch[place].position] = video, pixels.tobytes(), grid
    return found


def batches(rank=None, schedule=SCHEDULE):
    return [mini_batch(schedule, step, seed=0, rank=rank) for step in schedule]


def test_by_default_damage_stops_a_run_and_says_how_to_go_on(paths):
    with pytest.raises(DamagedVideo) as caught:
        read(VideoFiles(paths, range(COUNT)), batches())
    assert re.search(r"(05|11)\.mp4: .*damaged=\"skip\" draws other videos in its place.*checkpoint", str(caught.value))


@pytest.mark.filterwarnings(f"ignore:{SAID}")
def test_skipping_changes_no_other_clip(paths):
    skipping = VideoFiles(paths, range(COUNT), damaged="skip")
    found, plain = read(skipping, batches()), VideoFiles(paths, range(COUNT))
    replaced = hurt_and_read = 0
    for batch in batches():
        for sample in batch:
            try:
                ((_, video, pixels, grid),) = plain.decoded([sample])
            except DamagedVideo:
                replaced += 1
                assert sample.index in (CUT, HURT)
                assert found[sample.position][0] not in (CUT, sample.index)
            else:
                hurt_and_read += sample.index == HURT
                assert found[sample.position] == (video, pixels.tobytes(), grid)
    assert replaced >= 6
    assert hurt_and_read  # clips of a damaged video that need none of the damaged frames
    assert set(skipping.skipped) == {str(paths[CUT]), str(paths[HURT])}
    assert 'damaged="skip"' in skipping.skipped[str(paths[CUT])]


@pytest.mark.filterwarnings(f"ignore:{SAID}")
def test_every_process_and_every_resumed_run_skips_alike(paths):
    whole = read(VideoFiles(paths, range(COUNT), damaged="skip"), batches())
    backwards = read(VideoFiles(paths, range(COUNT), damaged="skip"), batches()[::-1])
    resumed = read(VideoFiles(paths, range(COUNT), damaged="skip"), batches()[len(SCHEDULE) // 2 :])
    one_by_one = read(
        pickle.loads(pickle.dumps(VideoFiles(paths, range(COUNT), damaged="skip"))),
        [batch[n : n + 1] for batch in batches() for n in range(len(batch))],
    )
    assert whole == backwards == one_by_one
    assert resumed == {position: whole[position] for position in resumed}
    assert {video for video, _, _ in whole.values()} == set(range(COUNT)) - {CUT}


@pytest.mark.filterwarnings(f"ignore:{SAID}")
def test_ranks_draw_what_one_process_draws(paths):
    schedule = Schedule(Shape(3, 8, 32, 32), samples=COUNT, epochs=4, processes=2)
    whole = read(VideoFiles(paths, range(COUNT), damaged="skip"), batches(schedule=schedule))
    for rank in range(2):
        mine = read(VideoFiles(paths, range(COUNT), damaged="skip"), batches(rank, schedule))
        assert mine == {position: whole[position] for position in mine}


def test_each_damaged_video_is_told_once(paths):
    files = VideoFiles(paths, range(COUNT), damaged="skip")
    with pytest.warns(RuntimeWarning, match=SAID) as told:
        read(files, batches())
    assert sorted(re.search(r"\d\d\.mp4", str(warning.message))[0] for warning in told) == ["05.mp4", "11.mp4"]
    assert "(1 of 24 videos so far in this process)" in str(told[0].message)
    assert "damaged='skip'" in repr(files)


@pytest.mark.filterwarnings(f"ignore:{SAID}")
def test_too_many_are_not_skipped(paths):
    bad = [paths[CUT]] * 3 + paths[:2]
    with pytest.raises(ValueError, match=r"damaged=\"skip\": 2 of 12 videos are damaged, and 1 may be \(one in 10\)"):
        read(
            VideoFiles([paths[CUT], paths[HURT], *(paths[:5] * 2)], range(12), damaged="skip"),
            [mini_batch(s, step, seed=0) for s in [Schedule(Shape(3, 8, 32, 32), samples=12, epochs=8)] for step in s],
        )
    files = VideoFiles(bad, range(5), damaged="skip")  # one file, three times: one that is damaged
    schedule = Schedule(Shape(1, 8, 32, 32), samples=5, epochs=2)
    assert set(read(files, [mini_batch(schedule, step, seed=0) for step in schedule]))


def test_what_the_decoder_makes_of_it_can_be_used(paths):
    files = VideoFiles(paths, range(COUNT), damaged="use")
    hurt_clips = [sample for batch in batches() for sample in batch if sample.index == HURT]
    assert len(list(files.decoded(hurt_clips[:1]))) == 1
    assert files.videos[HURT].read([40]).shape == (1, 48, 64, 3)
    assert "damaged='use'" in repr(files)


def test_evaluation_skips_nothing(paths):
    files = VideoFiles(paths, range(COUNT), damaged="skip")
    views = Views(files, Shape(1, 8, 32, 32), clips=1, crops=1)
    with pytest.raises(
        DamagedVideo, match=rf"05.mp4.*draws no other video in its place; leave video {CUT} out by dataset.subset"
    ):
        views.decoded(CUT)


def test_other_errors_are_not_skipped(paths, tmp_path):
    gone = mp4.write(tmp_path / "gone.mp4")
    files = VideoFiles([*paths[:4], gone], range(5), damaged="skip")
    gone.unlink()
    schedule = Schedule(Shape(1, 8, 32, 32), samples=5, epochs=2)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        read(files, [mini_batch(schedule, step, seed=0) for step in schedule])
    short = mp4.write(tmp_path / "short.mp4", frames=4)
    with pytest.raises(ValueError, match=r"short\.mp4: the video has 4 frames"):
        read(VideoFiles([short] * 5, range(5), damaged="skip"), [mini_batch(schedule, schedule[0], seed=0)])


def test_words_for_damage(paths):
    with pytest.raises(ValueError, match=re.escape('damaged (\'ignore\') must be "error", "skip" or "use"')):
        VideoFiles(paths, range(COUNT), damaged="ignore")


def test_the_other_clips_of_a_batch_are_as_if_read_alone(paths):
    """Damage that one clip of a video meets is no matter of its others."""
    files = VideoFiles(paths, range(COUNT), damaged="skip")
    samples = [sample for batch in batches() for sample in batch if sample.index == HURT]
    with pytest.warns(RuntimeWarning, match=SAID):
        together = {samples[place].position: clip for place, *clip in files.decoded(samples)}
    assert {clip[0] == HURT for clip in together.values()} == {True, False}
    for sample in samples:
        ((_, *alone),) = files.decoded([sample])
        assert alone[0] == together[sample.position][0]
        np.testing.assert_array_equal(alone[1], together[sample.position][1])
