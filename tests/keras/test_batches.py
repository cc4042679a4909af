import doctest
import gc
import importlib
import random
import re
import threading

import keras
import mp4
import numpy as np
import pytest
import toy
from toy import BACKEND, SCHEDULE

import pymultigrid.keras
from pymultigrid import Schedule, Shape, mini_batch, resample, view_grids
from pymultigrid.keras import MultigridCallback, SubBatchNormalization, VideoDataset, batches
from pymultigrid.video import Video

FILES = Schedule(Shape(2, 8, 32, 32), samples=6, epochs=8, lr_drops=(4,))
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's")


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_the_schedules_in_order(paths, workers):
    dataset = VideoDataset(paths, list(range(6)), mean=[0.4, 0.45, 0.5], std=0.225, stride=2, flip=1.0)
    count = 0
    for want, (step, (clips, labels)) in zip(FILES, dataset.training(FILES, seed=4, workers=workers), strict=True):
        assert step == want
        samples = mini_batch(FILES, step, seed=4)
        assert clips.shape == (*tuple(step.shape), 3)
        assert labels.tolist() == [sample.index for sample in samples]
        if count % 3 == 0:
            sample = samples[0]
            grid = sample.grid(Video(paths[sample.index]).extent, stride=2, flip=1.0)
            whole = mp4.decode(paths[sample.index])
            want = resample(whole, grid, mean=[0.4, 0.45, 0.5], std=0.225, layout="THWC")
            np.testing.assert_array_equal(clips[0], want)
        count += 1
    assert count == len(FILES)


def test_ranks_share_the_global_batch():
    schedule = Schedule(Shape(4, 4, 16, 16), samples=40, epochs=4, processes=2)
    streams = [batches(schedule, toy.read, rank=rank) for rank in (None, 0, 1)]
    for (_, whole), *parts in zip(*streams, strict=True):
        for got, want in zip(whole, zip(*(part for _, part in parts), strict=True), strict=True):
            np.testing.assert_array_equal(got, np.concatenate(want))


def test_clips_of_one_video_are_read_together(paths, monkeypatch):
    """A schedule for few videos: a coarse mini-batch has each several times, and every file is opened and read once."""
    few = Schedule(Shape(4, 8, 32, 32), samples=2, epochs=8)
    step = few[0]
    samples, dataset = mini_batch(few, step, seed=0), VideoDataset(paths[:2], range(2), std=0.5)
    assert step.shape.b > 2
    seen, read = [], Video.read
    monkeypatch.setattr(Video, "read", lambda self, frames: seen.append(self.path) or read(self, frames))
    clips, labels = dataset.read(samples)
    assert sorted(seen) == sorted(map(str, paths[:2]))
    assert labels.tolist() == [sample.index for sample in samples]
    for sample, clip in zip(samples, clips, strict=True):
        grid = sample.grid(Video(paths[sample.index]).extent)
        np.testing.assert_array_equal(clip, resample(mp4.decode(paths[sample.index]), grid, std=0.5, layout="THWC"))


def test_a_schedule_for_another_number_of_videos(paths):
    dataset = VideoDataset(paths, range(6))
    few, many = (Schedule(Shape(2, 8, 32, 32), samples=n, epochs=8) for n in (4, 200))
    with pytest.raises(ValueError, match=re.escape("is for 4 videos and the data set has 6, of which 2 would never")):
        next(iter(dataset.training(few)))
    with pytest.raises(Exception, match=r"the schedule asks for video \d+ of 6; build it with samples=6"):
        next(iter(dataset.training(many)))


def test_a_subset_is_its_videos_and_labels(paths):
    part = VideoDataset(paths, range(10, 16), std=0.5).subset([1, 4])
    schedule = Schedule(Shape(2, 8, 32, 32), samples=len(part), epochs=8)
    _, labels = part.read(mini_batch(schedule, schedule[0], seed=0))
    assert set(labels.tolist()) == {11, 14}


def test_several_labels_and_dtypes(paths):
    labels = [{"kind": i, "box": np.full(4, i, "float32")} for i in range(6)]
    dataset = VideoDataset(paths, labels, dtype="uint8")
    _, (clips, got) = next(iter(dataset.training(FILES)))
    assert clips.dtype == np.uint8
    assert got["kind"].shape == (len(clips),)
    assert got["box"].shape == (len(clips), 4)


def test_labels_are_numbers(paths):
    one_hot = [[0, 1, 0], [0, 0, 1]] * 3
    for labels in (one_hot, np.array(one_hot)):
        _, (_, got) = next(iter(VideoDataset(paths, labels).training(FILES)))
        assert got.shape == (FILES[0].shape.b, 3)
        assert got.sum(1).tolist() == [1] * len(got)
    for labels in ("abcdef", [{"kind": "cat"}] * 6, np.array(["cat"] * 6)):
        with pytest.raises(TypeError, match=r"labels has .* and must have numbers, arrays or lists of them, or tuples"):
            VideoDataset(paths, labels)
    with pytest.raises(
        ValueError, match=r"labels differ in their shape or structure: .*; pass the same for each video"
    ):
        VideoDataset(paths, [[1], [1, 2]] * 3)


def test_channels_first(paths):
    keras.config.set_image_data_format("channels_first")
    try:
        dataset = VideoDataset(paths, range(6))
        step = FILES[0]
        b, t, h, w = step.shape
        _, (clips, _) = next(iter(dataset.training(FILES)))
        assert clips.shape == (b, 3, t, h, w)
        assert dataset.evaluation(FILES.shape)[0][0].shape == (2, 3, 8, 32, 32)
    finally:
        keras.config.set_image_data_format("channels_last")


@on_tensorflow
def test_the_axes_of_a_tf_dataset_are_open():
    clips, labels = batches(MultigridCallback(SCHEDULE), toy.read).element_spec
    assert clips.shape.as_list() == [None, None, None, None, 3]
    assert labels.shape.as_list() == [None]


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tf.data has no index to shuffle")
def test_shuffling_changes_nothing():
    random.seed(0)
    model, record = toy.level_model(0.1), toy.Record()
    multigrid = MultigridCallback(SCHEDULE)
    with pytest.warns(UserWarning, match="`shuffle=True` was passed, but will be ignored"):
        model.fit(batches(multigrid, toy.read), callbacks=[multigrid, record], verbose=0)
    assert record.shapes == [tuple(step.shape) for step in SCHEDULE]


@pytest.mark.skipif(BACKEND == "tensorflow", reason="a tf.data.Dataset ends")
def test_data_that_is_over_says_so():
    multigrid, over = MultigridCallback(SCHEDULE), []
    data = batches(multigrid, toy.read)

    class More(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            for _ in range(4):
                try:
                    over.append(data[1])
                except RuntimeError as error:
                    over.append(str(error))

    toy.fit(toy.level_model(0.1), multigrid, More(), data=data)
    assert over[-1] == "the schedule is over and fit asks for more mini-batches"


def test_threads_end_with_the_data():
    stream = iter(batches(SCHEDULE, toy.read, workers=3))
    next(stream)
    del stream
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("pymultigrid"):
            thread.join(10)
            assert not thread.is_alive()


def test_an_error_in_a_thread_names_the_file(tmp_path):
    path = tmp_path / "cut.mp4"
    whole = mp4.write(tmp_path / "whole.mp4").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    dataset = VideoDataset([path] * 6, range(6))
    with pytest.raises(Exception, match=re.escape(f"{path}: the file is truncated: at least")):
        next(iter(dataset.training(FILES)))


@pytest.mark.filterwarnings("ignore:other videos are read in place of damaged clips")
def test_a_damaged_video_is_skipped_with_its_label(paths, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(paths[4].read_bytes()[:2000])
    cut = [*paths[:4], path, paths[5]]
    whole = list(VideoDataset(paths, range(6)).training(FILES))
    skipping = list(VideoDataset(cut, range(6), damaged="skip").training(FILES))
    for (_, (clips, labels)), (_, (others, of)) in zip(whole, skipping, strict=True):
        assert 4 not in of
        np.testing.assert_array_equal(labels[labels != 4], of[labels != 4])
        np.testing.assert_array_equal(clips[labels != 4], others[labels != 4])


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_views(paths, clips, crops):
    views = VideoDataset(paths, range(6), std=0.5, stride=2).evaluation(FILES.shape, clips=clips, crops=crops)
    n = clips * crops
    got, labels = (np.concatenate(part) for part in zip(*(views[i] for i in range(len(views))), strict=True))
    assert labels.tolist() == [label for label in range(6) for _ in range(n)]
    for i in range(6):
        whole = mp4.decode(paths[i])
        grids = view_grids(FILES.shape, whole.shape[:3], clips=clips, crops=crops, stride=2)
        want = [resample(whole, grid, std=0.5, layout="THWC") for grid in grids]
        np.testing.assert_array_equal(got[i * n : (i + 1) * n], want)


def test_evaluation_in_fit_evaluate_and_predict(paths):
    dataset = VideoDataset(paths, [0, 0, 1, 1, 0, 1], std=0.5)
    model, tested = SubBatchNormalization.convert(toy.compiled(toy.network())), []
    count = keras.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: tested.append(batch))
    multigrid = MultigridCallback(FILES)
    history = model.fit(
        dataset.training(multigrid),
        epochs=2,
        steps_per_epoch=-(-len(FILES) // 2),
        validation_data=dataset.evaluation(FILES.shape),
        callbacks=[multigrid, count],
        shuffle=False,
        verbose=0,
    )
    assert len(history.history["val_accuracy"]) == 2
    assert len(tested) == 2 * len(dataset.evaluation(FILES.shape))
    views = dataset.evaluation(FILES.shape, clips=2, crops=3)
    logits = model.predict(views, verbose=0)
    assert logits.shape == (6 * 6, 2)
    averaged = logits.reshape(len(dataset), 6, -1).mean(1)
    by_hand = np.stack([model.predict_on_batch(views[i][0]).mean(0) for i in range(6)])
    np.testing.assert_allclose(averaged, by_hand, rtol=1e-3, atol=1e-5)
    loss, accuracy = model.evaluate(dataset.evaluation(FILES.shape), verbose=0)
    assert loss == pytest.approx(history.history["val_loss"][-1], rel=1e-4)
    assert accuracy == pytest.approx(history.history["val_accuracy"][-1], rel=1e-4)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_bad_arguments(paths):
    with pytest.raises(ValueError, match=re.escape("dtype ('int64') can't be returned as a NumPy array")):
        VideoDataset(paths, range(6), dtype="int64")
    with pytest.raises(ValueError, match="std"):
        VideoDataset(paths, range(6), std=0.0)
    with pytest.raises(TypeError, match=re.escape("sride is no option of VideoDataset; sampling takes stride")):
        VideoDataset(paths, range(6), sride=2)
    narrow = VideoDataset(paths, range(6), short_side=(20, 30))
    for steps in (FILES, MultigridCallback(FILES)):
        with pytest.raises(ValueError, match=re.escape("(20, 30) must begin at the baseline's crop (32) or above")):
            narrow.training(steps)
    assert all(video._index is None for video in narrow.videos)  # no file was opened for it
    with pytest.raises(TypeError, match=r"shape \(<Schedule: .*>\) must be a Shape; pass schedule.shape"):
        VideoDataset(paths, range(6)).evaluation(FILES)
    with pytest.raises(ValueError, match=re.escape("crops (0)")):
        VideoDataset(paths, range(6)).evaluation(FILES.shape, crops=0)
    with pytest.raises(TypeError, match=re.escape("must be a MultigridCallback, or a Schedule for a loop of your own")):
        batches([1, 2], toy.read)
    with pytest.raises(ValueError, match=re.escape("schedule has no steps; there is nothing left to train")):
        batches(SCHEDULE[12:], toy.read)
    with pytest.raises(ValueError, match=re.escape("workers (0) must be at least 1: the threads that read")):
        batches(SCHEDULE, toy.read, workers=0)
    with pytest.raises(ValueError, match=re.escape("seed (-1) must lie in [0, 2**64)")):
        batches(SCHEDULE, toy.read, seed=-1)
    with pytest.raises(ValueError, match=re.escape("rank (1) must lie in [0, 1)")):
        batches(SCHEDULE, toy.read, rank=1)


def test_from_folder(folder):
    dataset = VideoDataset.from_folder(folder, std=0.5)
    assert dataset.classes == ("cat", "dog", "eel")
    assert list(dataset.labels) == [0, 0, 1, 1, 2, 2]
    assert repr(dataset) == "VideoDataset(videos=6, classes=3, std=0.5, dtype='float32', layout='THWC')"
    assert repr(dataset.evaluation(FILES.shape, crops=3)) == "VideoViews(videos=6, clips=1, crops=3, each 8x32x32)"


# -- resample where Keras' data is -------------------------------------------------------------------------------------


def test_resample_reads_tensors_of_the_backend():
    """NumPy in, NumPy out; a tensor of the backend is read where it lies, by DLPack."""
    grid = SCHEDULE[0].grid(toy.EXTENT, seed=0, sample=0, stride=2)
    for dtype in ("uint8", "float32"):
        video = toy.PIXELS[0].astype(dtype)
        tensor = keras.ops.convert_to_tensor(video, dtype=dtype)
        np.testing.assert_array_equal(resample(tensor, grid), resample(video, grid))


@on_tensorflow
def test_resample_in_a_tf_data_map():
    """For pipelines of one's own: `resample` as a NumPy function, in parallel, on the schedule's grids."""
    import tensorflow as tf

    def read(index):
        clips, labels = toy.read(mini_batch(SCHEDULE, SCHEDULE[int(index)], seed=0))
        return clips, labels

    def load(index):
        clips, labels = tf.numpy_function(read, [index], (tf.float32, tf.int64), stateful=False)
        return tf.ensure_shape(clips, [None, None, None, None, 3]), tf.ensure_shape(labels, [None])

    data = tf.data.Dataset.range(len(SCHEDULE)).map(load, num_parallel_calls=2).prefetch(2)
    for got, (_, want) in zip(data, batches(SCHEDULE, toy.read), strict=True):
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])


# -- the package -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_batches", "_batch_norm", "_callback", "_dataset", "_scaled_lr"])
def test_examples_run(name):
    module = importlib.import_module(f"pymultigrid.keras.{name}")
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed


def test_every_public_name_is_documented():
    for name in pymultigrid.keras.__all__:
        assert getattr(pymultigrid.keras, name).__doc__, name
