"""Batch norms that are not sub-batch ones: named where a model is converted or trained; and the way back."""

import copy
import re
import warnings

import pytest
import torch
from test_batch_norm import batch, close
from torch import nn
from torch.nn.utils import parametrize

from pymultigrid import Schedule, Shape
from pymultigrid.torch import SubBatchNorm, SubBatchNorm3d, sub_batches

SCHEDULE = Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10, lr_scaling="none")
WHOLE = "not converted: the mini-batch is normalised as a whole there, which for a coarse step is not the baseline's"


class NormAct(nn.BatchNorm3d):
    def forward(self, x):
        return super().forward(x).relu()


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


def parametrized():
    norm = nn.BatchNorm3d(4)
    parametrize.register_parametrization(norm, "weight", Twice())
    return norm


def entered(model, step=SCHEDULE[0]):
    with sub_batches(model, step) as splits:
        return splits


@pytest.mark.parametrize("lazy", [nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d])
@pytest.mark.parametrize("take", [SubBatchNorm.convert, entered])
def test_lazy_norms_are_refused_until_they_are_built(lazy, take):
    model = nn.Sequential(nn.BatchNorm3d(4), nn.Sequential(lazy()))
    built = re.escape(f"batch norm 1.0 ({lazy.__name__}) can't be converted before being built")
    with pytest.raises(ValueError, match=built):
        take(model)
    assert type(model[0]) is nn.BatchNorm3d  # nothing is half done
    model[1](torch.randn(4, 4, *[3] * int(lazy.__name__[-2])))
    SubBatchNorm.convert(model)
    with sub_batches(model, SCHEDULE[0]) as splits:
        assert model[0].splits == model[1][0].splits == splits == 8


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda: NormAct(4), "NormAct"), (parametrized, "ParametrizedBatchNorm3d"), (lambda: nn.SyncBatchNorm(4), "Sync")],
)
def test_what_stays_as_it_is_is_named_once(make, name):
    model = nn.Sequential(nn.BatchNorm3d(4), make())
    with pytest.warns(RuntimeWarning, match=re.escape(f"batch norm 1 ({name}") + r"\w*\) " + WHOLE):
        SubBatchNorm.convert(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SubBatchNorm.convert(model)
        assert entered(model) == 8
    copied = copy.deepcopy(model)  # whose user has heard nothing
    with pytest.warns(RuntimeWarning, match=re.escape(f"batch norm 1 ({name}") + r"\w*\) " + WHOLE):
        entered(copied)


def test_a_model_of_such_norms_alone_is_told_of_in_its_first_step():
    model = nn.Sequential(NormAct(4), NormAct(4), NormAct(4), NormAct(4), NormAct(4))
    many = "batch norms 0 (NormAct), 1 (NormAct), 2 (NormAct) and 2 more not converted"
    with pytest.warns(RuntimeWarning, match=re.escape(many)):
        entered(model)
    entered(model)


def test_a_norm_that_comes_after_convert_is_named_at_the_next_shape():
    model = SubBatchNorm.convert(nn.Sequential(nn.BatchNorm3d(4)))
    entered(model)
    model.append(nn.BatchNorm1d(4))
    other = next(step for step in SCHEDULE if step.shape != SCHEDULE[0].shape)
    with pytest.warns(RuntimeWarning, match=re.escape("batch norm 1 (BatchNorm1d) " + WHOLE)):
        entered(model, other)
    assert type(SubBatchNorm.convert(model)[1]) is not nn.BatchNorm1d


def test_what_one_dimension_leaves_to_the_others_is_a_choice():
    model = SubBatchNorm3d.convert(nn.Sequential(nn.BatchNorm3d(4), nn.BatchNorm1d(4)))
    entered(model)


def test_parametrized_after_convert_it_takes_part():
    model = SubBatchNorm.convert(nn.Sequential(nn.BatchNorm3d(4)))
    parametrize.register_parametrization(model[0], "weight", Twice())
    with sub_batches(model, SCHEDULE[0]) as splits:
        assert model[0].splits == splits == 8
        x = batch(64, (4, 2, 23, 23))
        part = model(x)[::8]
    close(part, 2 * nn.BatchNorm3d(4)(x[::8]))
    with pytest.raises(ValueError, match=re.escape("revert can't take batch norm 0 (ParametrizedSubBatchNorm3d)")):
        SubBatchNorm.revert(model)
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(SubBatchNorm.revert(model)[0]) is nn.BatchNorm3d


# -- export ------------------------------------------------------------------------------------------------------------


def trained():
    torch.manual_seed(0)
    model = SubBatchNorm.convert(nn.Sequential(nn.Conv3d(3, 4, (1, 3, 3)), nn.BatchNorm3d(4), nn.ReLU()))
    with sub_batches(model, SCHEDULE[0]):
        model(torch.randn(64, 3, 2, 23, 23)).sum().backward()
    return model


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("export", [torch.jit.script, torch.fx.symbolic_trace])
def test_scripting_and_tracing_say_to_revert(export, training):
    model = trained().train(training)
    revert = re.escape("with torch's own layers, SubBatchNorm.revert(copy.deepcopy(model)).eval()")
    with pytest.raises(RuntimeError, match=revert):
        export(model)
    assert isinstance(model[1], SubBatchNorm3d)
    exported, x = export(SubBatchNorm.revert(copy.deepcopy(model)).eval()), torch.randn(2, 3, 4, 8, 8)
    assert torch.allclose(exported(x), model.eval()(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:`torch.jit.trace")
@pytest.mark.parametrize("scripted", [True, False])
def test_a_scripted_or_traced_model_is_told_of(scripted):
    plain = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)).eval()
    clips = torch.randn(2, 3, 4, 8, 8)
    model = torch.jit.script(plain) if scripted else torch.jit.trace(plain, clips)
    with pytest.warns(RuntimeWarning, match=re.escape("batch norm 1 (") + r"\w+\) " + WHOLE):
        entered(model)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize("layers", [["0", "1"], ["0", "1", "2"]])
def test_fusing_with_a_convolution(layers):
    model, x = trained().eval(), torch.randn(2, 3, 4, 8, 8)
    want = model(x)
    fused = torch.ao.quantization.fuse_modules(copy.deepcopy(model), [layers])
    assert [type(layer) for layer in fused[1:2]] == [nn.Identity]
    torch.testing.assert_close(fused(x), want)
    assert isinstance(model[1], SubBatchNorm3d)
    qat = torch.ao.quantization.fuse_modules_qat(copy.deepcopy(model).train(), [layers])
    assert type(qat[1]) is nn.Identity
    assert nn.BatchNorm3d in map(type, qat.modules())
