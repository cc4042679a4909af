import math
import re
import sys

import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: evaluation is NOT tested")

import watched
from torch import nn

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Evaluation, SubBatchNorm3d, VideoDataset, evaluate

SCHEDULE = Schedule(Shape(4, 8, 32, 32), samples=20, epochs=6)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = watched.write_videos(tmp_path_factory.mktemp("videos") / "test")
    return VideoDataset.from_folder(folder, mean=0.45, std=0.225)


def network(classes=3):
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv3d(3, 4, 3, 2, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.AdaptiveAvgPool3d(1))
    return SubBatchNorm3d.convert(nn.Sequential(features, nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, classes)))


class Sizes(nn.Module):
    """Keep the number of clips in each forward."""

    def __init__(self, net):
        super().__init__()
        self.net, self.clips = net, []

    def forward(self, clips):
        self.clips.append(len(clips))
        return self.net(clips)


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_the_average_over_the_views_of_each_video(dataset, average):
    model, views = network(), dataset.evaluation(SCHEDULE.shape, clips=2, crops=3)
    found = evaluate(model, views, average=average)
    model.eval()
    with torch.no_grad():
        for i, scores in enumerate(found.scores):
            logits = model(views[i][0])
            want = logits.softmax(1).mean(0) if average == "softmax" else logits.mean(0)
            torch.testing.assert_close(scores, want)
    assert found.labels.tolist() == [0] * 10 + [1] * 10
    assert found.scores.dtype == torch.float32


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_memory_is_bounded(dataset, clips, crops, batch_size):
    model = Sizes(network())
    evaluate(model, dataset.evaluation(SCHEDULE.shape, clips=clips, crops=crops), batch_size=batch_size)
    assert max(model.clips) == min(batch_size or SCHEDULE.shape.b, max(clips * crops, batch_size or SCHEDULE.shape.b))
    assert sum(model.clips) == 20 * clips * crops


def test_clips_that_are_resampled_on_the_device(dataset):
    paths = [video.path for video in dataset.videos]
    other = VideoDataset(paths, dataset.labels, mean=0.45, std=0.225, resample_on="device")
    model = network()
    first, second = (evaluate(model, each.evaluation(SCHEDULE.shape, clips=2)) for each in (dataset, other))
    assert torch.equal(first.scores, second.scores)


def test_it_is_deterministic_and_leaves_no_trace(dataset):
    model, views = network(), dataset.evaluation(SCHEDULE.shape, clips=2)
    model.train()
    model[0][1].eval()  # frozen, as in fine-tuning
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    before = torch.random.get_rng_state()
    first = evaluate(model, views, num_workers=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.scores, evaluate(model, views, batch_size=4).scores)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not first.scores.requires_grad


def test_the_mode_is_restored_after_an_error(dataset):
    model = nn.Sequential(network(), nn.Unflatten(1, (7, 7)))
    with pytest.raises(RuntimeError):
        evaluate(model, dataset.evaluation(SCHEDULE.shape))
    assert all(module.training for module in model.modules())


def test_autocast(dataset):
    with torch.autocast("cpu", torch.bfloat16):
        found = evaluate(network(), dataset.evaluation(SCHEDULE.shape))
    assert found.scores.dtype == torch.float32
    torch.testing.assert_close(found.scores.sum(1), torch.ones(20))


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_is_for_terminals(dataset, progress, monkeypatch, capsys):
    pytest.importorskip("tqdm", reason="tqdm is missing: the progress bar is NOT tested")
    evaluate(network(), dataset.evaluation(SCHEDULE.shape), progress=progress)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    evaluate(network(), dataset.evaluation(SCHEDULE.shape), progress=progress)
    assert ("evaluate: 100%" in capsys.readouterr().err) == progress


def test_accuracy():
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])
    found = Evaluation(scores, torch.tensor([1, 1, 0, 0]))
    assert [found.accuracy(k) for k in (1, 2, 3)] == [0.5, 0.75, 1.0]
    assert repr(found) == "Evaluation(videos=4, classes=3, accuracy=0.500)"
    with pytest.raises(ValueError, match=re.escape("k (4) must lie in [1, 3]: the scores are of 3 classes")):
        found.accuracy(4)


class Given(nn.Module):
    """The same scores for every clip."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, clips):
        return self.scores.expand(len(clips), -1)


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_an_accuracy_of_nan(dataset, average):
    """Not the share of the first class, which NaN would be if it were the highest score."""
    views = dataset.evaluation(SCHEDULE.shape)
    with pytest.warns(RuntimeWarning, match=re.escape("the model's scores are NaN for 20 of 20 videos, and so is the")):
        found = evaluate(Given(math.nan, 0.0, 1.0), views, average=average)
    assert math.isnan(found.accuracy())
    assert math.isnan(found.accuracy(2))
    assert repr(found) == "Evaluation(videos=20, classes=3, accuracy=nan)"
    assert evaluate(Given(1.0, 0.0, -math.inf), views, average=average).accuracy() == 0.5  # a class that is left out


@pytest.mark.parametrize(("labels", "wrong"), [([0] * 19 + [3], 3), ([-1] + [0] * 19, -1), (range(1, 21), 3)])
def test_labels_beyond_the_classes(dataset, labels, wrong):
    views = VideoDataset([video.path for video in dataset.videos], labels).evaluation(SCHEDULE.shape)
    said = re.escape(f"label {wrong} is none of the model's 3 classes, 0 to 2: number the classes from 0")
    with pytest.raises(ValueError, match=said):
        evaluate(network(), views, batch_size=20)
    with pytest.raises(ValueError, match=said):
        Evaluation(torch.zeros(20, 3), torch.tensor(list(labels)))


def test_bad_evaluations():
    with pytest.raises(TypeError, match=re.escape("scores (tensor([0., 0.])) must be a tensor, videos x classes")):
        Evaluation(torch.zeros(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=re.escape("labels has 1 videos, and scores has 2; pass one row for each")):
        Evaluation(torch.zeros(2, 2), torch.tensor([0]))
    with pytest.raises(TypeError, match=re.escape("labels ([0, 1]) must be whole numbers")):
        Evaluation(torch.zeros(2, 2), [0, 1])
    with pytest.raises(TypeError, match=re.escape("k (1.5) must be a whole number")):
        Evaluation(torch.zeros(2, 2), torch.tensor([0, 1])).accuracy(1.5)


def test_bad_arguments(dataset):
    views = dataset.evaluation(SCHEDULE.shape)
    with pytest.raises(TypeError, match=re.escape("views (VideoDataset) must be what dataset.evaluation(shape)")):
        evaluate(network(), dataset)
    with pytest.raises(ValueError, match=re.escape('average (\'sum\') must be "softmax" or "logits"')):
        evaluate(network(), views, average="sum")
    with pytest.raises(ValueError, match=re.escape("batch_size (0) must be at least 1: the clips in one forward")):
        evaluate(network(), views, batch_size=0)
    with pytest.raises(ValueError, match=re.escape("the model made (4, 4, 1, 1, 1) of 4 clips, not 4 x classes; wrap")):
        evaluate(network()[0], views)
    strings = VideoDataset([video.path for video in dataset.videos], ["a"] * 20)
    with pytest.raises(TypeError, match=re.escape("labels (('a', 'a', 'a', 'a')) must be whole numbers, one")):
        evaluate(network(), strings.evaluation(SCHEDULE.shape))
