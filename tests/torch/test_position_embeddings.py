"""Video transformers through every shape of a schedule."""

import copy
import re

import pytest
import torch
from processes import processes
from test_models import SCHEDULE, STEPS, clips, imported
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pymultigrid import Schedule, Shape
from pymultigrid.torch import PositionEmbeddings, layer_errors


class Transformer(nn.Module):
    """A video transformer with everything: learned places, learned times, a fixed table, a class token, size checks."""

    def __init__(self, dim=8):
        super().__init__()
        self.img_size, self.num_frames = (64, 64), 8
        self.patches = nn.Conv3d(3, dim, (2, 16, 16), (2, 16, 16))
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + 4 * 4 * 4, dim))
        self.temporal_embed = nn.Parameter(torch.randn(4, dim))
        self.register_buffer("fixed_pos", torch.randn(1, 16, dim))
        self.layer = nn.TransformerEncoderLayer(dim, 2, 16, batch_first=True, dropout=0.0)
        self.head = nn.Linear(dim, 5)

    def forward(self, x):
        if (*x.shape[3:], x.shape[2]) != (*self.img_size, self.num_frames):
            raise ValueError("wrong size")
        x = self.patches(x).flatten(3).permute(0, 2, 3, 1)
        x = (x + self.temporal_embed[:, None] + self.fixed_pos).flatten(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.layer(x)[:, 0])


def transformer():
    torch.manual_seed(0)
    model = Transformer()
    return model, PositionEmbeddings(model, SCHEDULE.shape, patch=(2, 16, 16))


def test_tables_are_found_and_shown():
    assert repr(transformer()[1]) == (
        "PositionEmbeddings(pos_embed: t 4 x h 4 x w 4, temporal_embed: t 4, fixed_pos: h 4 x w 4, "
        "img_size, num_frames)"
    )


def test_fitted_tables_are_the_antialiased_interpolation():
    """By hand: from 4 cells to 2, a triangle of 2 cells to either side around 1.0 and 3.0, cut at the border."""
    model, embeddings = transformer()
    seen = {}
    model.layer.register_forward_pre_hook(
        lambda *_: seen.update({n: getattr(model, n) for n in ("pos_embed", "temporal_embed", "fixed_pos")})
    )
    step = next(step for step in STEPS if tuple(step.shape)[1:] == (4, 32, 32))
    with embeddings.at(step), torch.autocast("cpu", torch.bfloat16):
        model(clips(step))
    half = torch.tensor([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    torch.testing.assert_close(seen["temporal_embed"], half @ model.temporal_embed)
    want = torch.einsum("yh,xw,nhwc->nyxc", half, half, model.fixed_pos.reshape(1, 4, 4, 8)).reshape(1, 4, 8)
    torch.testing.assert_close(seen["fixed_pos"], want)
    image = model.fixed_pos.reshape(1, 4, 4, 8).permute(0, 3, 1, 2)
    image = F.interpolate(image, (2, 2), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen["fixed_pos"], image.flatten(2).transpose(1, 2))
    places = model.pos_embed[:, 1:].reshape(1, 4, 4, 4, 8)
    want = torch.einsum("st,yh,xw,nthwc->nsyxc", half, half, half, places).reshape(1, 8, 8)
    torch.testing.assert_close(seen["pos_embed"], torch.cat([model.pos_embed[:, :1], want], 1))


def test_a_constant_table_stays_constant():
    model, embeddings = transformer()
    nn.init.constant_(model.pos_embed, 0.25)
    seen = []
    model.layer.register_forward_pre_hook(lambda *_: seen.append(model.pos_embed))
    for step in STEPS:
        with embeddings.at(step):
            model(clips(step))
    assert all((table - 0.25).abs().max() < 1e-6 for table in seen)


def test_the_full_shape_is_left_alone():
    model, embeddings = transformer()
    step = next(step for step in STEPS if tuple(step.shape)[1:] == (8, 64, 64))
    want = model(clips(step))
    with embeddings.at(step):
        assert not model._forward_pre_hooks
        assert torch.equal(model(clips(step)), want)


def test_everything_is_as_it_was_outside_and_the_parameters_inside_too():
    model, embeddings = transformer()
    before, table = list(model.parameters()), model.fixed_pos
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with embeddings.at(STEPS[0]):
        model(clips(STEPS[0]))
        assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="wrong size"), embeddings.at(STEPS[0]):
        model(torch.zeros(1, 4, 8, 64, 64))
    with pytest.raises(KeyError), embeddings.at(STEPS[0]):
        raise KeyError
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert model.fixed_pos is table
    assert (model.img_size, model.num_frames) == ((64, 64), 8)
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    model(torch.zeros(1, 3, 8, 64, 64))


def test_gradients_reach_the_full_table_over_several_backwards():
    """Gradient accumulation, clipping and the optimizer inside the step, as loops have them."""
    model, embeddings = transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    step, table = STEPS[0], model.pos_embed.detach().clone()
    with embeddings.at(step):
        for half in clips(step).chunk(2):
            F.cross_entropy(model(half), torch.zeros(len(half), dtype=torch.long)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert model.pos_embed.grad.shape == table.shape
    assert (model.pos_embed.grad.abs().sum(-1) > 0).all()
    assert not torch.equal(model.pos_embed, table)
    assert optimizer.state[model.pos_embed]["exp_avg"].shape == table.shape


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the tracer looks at it
def test_compiled_and_checkpointed_and_copied():
    model, embeddings = transformer()
    average = torch.optim.swa_utils.AveragedModel(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    for step in (STEPS[0], STEPS[2], STEPS[0]):
        x, grads = clips(step), []
        for run in (model, compiled, lambda x: checkpoint(model, x, use_reentrant=False)):
            model.zero_grad()
            with embeddings.at(step):
                run(x).square().sum().backward()
                average.update_parameters(model)
            grads.append([p.grad.clone() for p in model.parameters()])
        for other in grads[1:]:
            torch.testing.assert_close(other, grads[0])
    assert average.eval()(torch.zeros(1, 3, 8, 64, 64)).isfinite().all()


def test_wrapped_in_ddp_and_sharded_by_fsdp():
    processes(wrapped)


def wrapped(rank):
    for wrap in (nn.parallel.DistributedDataParallel, fully_shard):
        (alone, alone_embeddings), (model, _) = transformer(), transformer()
        run = wrap(model)
        embeddings = PositionEmbeddings(run, SCHEDULE.shape, patch=(2, 16, 16))
        for step in STEPS[:2]:
            x = clips(step)
            with embeddings.at(step):
                run(x).square().mean().backward()
            with alone_embeddings.at(step):
                alone(x).square().mean().backward()
        for got, want in zip(model.parameters(), alone.parameters(), strict=True):
            grad = got.grad.full_tensor() if wrap is fully_shard else got.grad
            torch.testing.assert_close(grad, want.grad)


def test_an_embeddings_weight_is_a_table():
    class Looked(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.positions = nn.Conv3d(3, 8, (2, 16, 16), (2, 16, 16)), nn.Embedding(64, 8)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            return x + self.positions(torch.arange(x.shape[1]))

    model = Looked()
    embeddings = PositionEmbeddings(model, SCHEDULE.shape, patch=(2, 16, 16))
    assert repr(embeddings) == "PositionEmbeddings(positions.weight: t 4 x h 4 x w 4)"
    with embeddings.at(STEPS[0]):
        model(clips(STEPS[0])).square().sum().backward()
    assert (model.positions.weight.grad.abs().sum(1) > 0).all()  # not the first rows alone


def test_a_copy_made_inside_of_a_step_keeps_nothing_of_the_tables():
    model, embeddings = transformer()
    with embeddings.at(STEPS[0]):
        inside = copy.deepcopy(model)
    full = torch.zeros(1, 3, 8, 64, 64)
    inside.img_size, inside.num_frames = model.img_size, model.num_frames
    torch.testing.assert_close(inside.eval()(full), model.eval()(full))


def test_sizes_that_are_not_whole_patches_are_told_once():
    model, embeddings = transformer()
    schedule = Schedule(SCHEDULE.shape, samples=100, epochs=10)
    step = next(step for step in schedule if tuple(step.shape)[1:] == (2, 45, 45))
    cut = f"not whole patches of 2x16x16: {step.shape}. The rest of each clip is cut off"
    with pytest.warns(RuntimeWarning, match=re.escape(cut) + ".*plan with multiple_of=16$"), embeddings.at(step):
        pass
    with embeddings.at(step), torch.no_grad():
        model(torch.zeros(1, 3, *tuple(step.shape)[1:]))


# -- models of others --------------------------------------------------------------------------------------------------


def test_timm():
    """A frame-wise image transformer, as video models are made of them."""
    timm = imported("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5, depth=2, dynamic_img_size=False)
    embeddings = PositionEmbeddings(model, SCHEDULE.shape, patch=(1, 16, 16))
    for step in STEPS:
        frames = clips(step).transpose(1, 2).flatten(0, 1)
        with embeddings.at(step):
            model(frames).sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0


def small(**options):
    return dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=64, num_frames=8,
        num_labels=5, **options,
    )  # fmt: skip


HUGGING_FACE = {
    "VideoMAE": (
        {"patch_size": 16, "tubelet_size": 2},
        (2, 16, 16),
        "videomae.embeddings.position_embeddings: t 4 x h",
    ),
    "Timesformer": ({"patch_size": 16}, (1, 16, 16), "timesformer.embeddings.time_embeddings: t 8"),
    "Vivit": ({"tubelet_size": [2, 16, 16]}, (2, 16, 16), "vivit.embeddings.position_embeddings: t 4 x h 4 x w 4"),
}


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face_video_transformers(name):
    transformers = pytest.importorskip(
        "transformers", reason="transformers is missing: VideoMAE, TimeSformer and ViViT were NOT run"
    )
    options, patch, found = HUGGING_FACE[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**small(**options))
    model = getattr(transformers, f"{name}ForVideoClassification")(config)
    for key, parameter in model.named_parameters():
        if "embeddings" in key:
            nn.init.normal_(parameter)  # TimeSformer's start at zero
    state = {key: value.clone() for key, value in model.state_dict().items()}
    saved = config.to_dict()
    embeddings = PositionEmbeddings(model, SCHEDULE.shape, patch=patch)
    assert found in repr(embeddings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in STEPS:
        x = clips(step).transpose(1, 2)  # these take B x T x C x H x W
        optimizer.zero_grad()
        with embeddings.at(step):
            F.cross_entropy(model(x).logits, torch.zeros(len(x), dtype=torch.long)).backward()
        for key, parameter in model.named_parameters():
            if "position_embeddings" in key or "time_embeddings" in key:
                assert parameter.grad.shape == state[key].shape
                assert (parameter.grad.abs().sum(-1) > 0).all()
        optimizer.step()
        assert config.to_dict() == saved
    assert {key: value.shape for key, value in model.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert model(torch.zeros(1, 8, 3, 64, 64)).logits.isfinite().all()


def test_hugging_face_needs_it():
    """Without it VideoMAE says no, and TimeSformer would silently mix frames and places of coarse clips."""
    transformers = pytest.importorskip("transformers", reason="transformers is missing: TimeSformer was NOT run")
    torch.manual_seed(0)
    model = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(**small(patch_size=16))
    ).eval()
    embeddings = PositionEmbeddings(model, SCHEDULE.shape, patch=(1, 16, 16))
    step = next(step for step in STEPS if tuple(step.shape)[1:] == (4, 64, 64))
    # A model that was built for 4 frames, with the same weights, is what the fitted one must be.
    built = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(**{**small(patch_size=16), "num_frames": 4})
    ).eval()
    weights = model.state_dict()
    times = "timesformer.embeddings.time_embeddings"
    weights[times] = F.interpolate(weights[times][None], (4, 16), mode="bilinear", antialias=True)[0]
    built.load_state_dict(weights)
    x = clips(step).transpose(1, 2)
    with embeddings.at(step):
        torch.testing.assert_close(model(x).logits, built(x).logits)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_tables_by_name():
    model = nn.Module()
    model.encoder = nn.Module()
    model.encoder.place, model.encoder.when = nn.Parameter(torch.randn(18, 8)), nn.Parameter(torch.randn(1, 8, 8))
    embeddings = PositionEmbeddings(
        model, Shape(2, 8, 64, 64), patch=(1, 16, 16), tables={"encoder.place": "hw", "encoder.when": "t"}
    )
    assert repr(embeddings) == "PositionEmbeddings(encoder.place: h 4 x w 4, encoder.when: t 8)"


def test_one_cell_in_time_is_one_table():
    model = nn.Module()
    model.pos_embed = nn.Parameter(torch.randn(1, 17, 8))
    embeddings = PositionEmbeddings(model, Shape(2, 2, 64, 64), patch=(2, 16, 16))
    assert repr(embeddings) == "PositionEmbeddings(pos_embed: t 1 x h 4 x w 4)"


def test_refusals():
    model, embeddings = transformer()
    full = SCHEDULE.shape
    with pytest.raises(
        ValueError, match=re.escape("model (Linear) has no position embeddings of t 4 x h 4 x w 4 cells")
    ):
        PositionEmbeddings(nn.Linear(2, 2), full, patch=(2, 16, 16))
    with pytest.raises(TypeError, match=re.escape("full (Schedule) must be a Shape; pass schedule.shape")):
        PositionEmbeddings(model, SCHEDULE, patch=(2, 16, 16))
    for wrong, error in (((2, 16), ValueError), ((0, 4, 4), ValueError), (16, TypeError), ((2, 16.0, 16), TypeError)):
        rule = f"patch ({wrong}) must be three sizes: frames, rows and columns, each at least 1; write (2, 16, 16)"
        with pytest.raises(error, match=re.escape(rule)):
            PositionEmbeddings(model, full, patch=wrong)
    with pytest.raises(ValueError, match=re.escape("tables names where, which model (Transformer) does not have")):
        PositionEmbeddings(model, full, patch=(2, 16, 16), tables={"where": "t"})
    with pytest.raises(ValueError, match=re.escape("tables ({'pos_embed': 'xyz'}) must give the axes of a table")):
        PositionEmbeddings(model, full, patch=(2, 16, 16), tables={"pos_embed": "xyz"})
    wrong = re.escape("tables names pos_embed, of shape (1, 65, 8), as h 4 x w 4 cells after at most 2 tokens")
    with pytest.raises(ValueError, match=wrong):
        PositionEmbeddings(model, full, patch=(2, 16, 16), tables={"pos_embed": "hw"})
    with pytest.raises(TypeError, match=re.escape("step (0) must be a Step; take it from")), embeddings.at(0):
        pass
    with pytest.raises(RuntimeError, match="the model is fitted to a step already"), embeddings.at(STEPS[0]):
        embeddings.at(STEPS[0]).__enter__()
    tiny = Schedule(Shape(2, 8, 16, 16), samples=100, epochs=10)
    with pytest.raises(ValueError, match=re.escape("is smaller than a patch of (2, 16, 16); keep whole patches")):
        embeddings.at(tiny[0]).__enter__()


def test_the_layer_of_a_transformer_that_is_not_fitted():
    model, _ = transformer()
    with pytest.raises(ValueError, match=re.escape("model (Transformer) can't take 4x3x")), layer_errors(model):
        model(clips(STEPS[0]))
