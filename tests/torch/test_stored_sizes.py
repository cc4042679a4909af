"""Sizes of the full shape that a model keeps in attributes: they follow the step."""

import pytest
import torch
from test_models import SCHEDULE, STEPS, clips, imported
from test_position_embeddings import transformer
from torch import nn

from pymultigrid.torch import PositionEmbeddings


class Kept:
    """Not a module: a `config`."""


@pytest.mark.parametrize(
    ("attribute", "full", "coarse"),
    [
        ("image_size", 64, 32), ("img_size", (64, 64), (32, 32)), ("crop_size", [64, 64], [32, 32]),
        ("input_size", (8, 64, 64), (4, 32, 32)), ("num_frames", 8, 4), ("frames_per_clip", 8, 4),
        ("grid_size", 4, 2), ("grid_size", (4, 4), (2, 2)), ("grid_size", (4, 4, 4), (2, 2, 2)), ("grid_depth", 4, 2),
        ("spatial_size", torch.Size((4, 4)), torch.Size((2, 2))), ("temporal_size", 4, 2), ("num_patches", 64, 8),
        ("num_patches", 16, 4), ("_patch_embed_shape", (4, 4, 4), (2, 2, 2)), ("token_grid", (4, 4), (2, 2)),
        # Other sizes, other things, and names that nobody knows.
        ("grid_size", 7, 7), ("grid_size", (4, 2), (4, 2)), ("num_frames", 64, 64), ("hidden_size", 64, 64),
        ("num_patches", True, True), ("patch_size", (4, 4), (4, 4)), ("image_size", None, None), ("depth", 4, 4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_config", [False, True])
def test_sizes_follow_by_name_and_value(attribute, full, coarse, in_config):
    model, _ = transformer()
    model.config = Kept()
    owner = model.config if in_config else model
    setattr(owner, attribute, full)
    step = next(step for step in STEPS if tuple(step.shape)[1:] == (4, 32, 32))
    embeddings = PositionEmbeddings(model, SCHEDULE.shape, patch=(2, 16, 16))
    with embeddings.at(step):
        assert getattr(owner, attribute) == coarse
        assert type(getattr(owner, attribute)) is type(coarse)
    assert getattr(owner, attribute) is full
    names = repr(embeddings)[:-1].split(", ")
    assert (f"{'config.' * in_config}{attribute}" in names) == (full != coarse)


class Rotary(nn.Module):
    """Patches with their places, computed from the sizes that the model was built for; no table."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv3d(3, 8, (2, 16, 16), (2, 16, 16))
        self.spatial_size, self.temporal_size = (4, 4), 4
        self.places = []

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        n, (h, w) = torch.arange(x.shape[1]), self.spatial_size
        self.places = list(zip((n // (h * w)).tolist(), (n % (h * w) // w).tolist(), (n % w).tolist(), strict=True))
        return x


def test_a_model_of_sizes_alone_gives_each_patch_its_place():
    model = Rotary()
    embeddings = PositionEmbeddings(model, SCHEDULE.shape, patch=(2, 16, 16))
    assert repr(embeddings) == "PositionEmbeddings(spatial_size, temporal_size)"
    for step in STEPS:
        t, h, w = step.shape.t // 2, step.shape.h // 16, step.shape.w // 16
        with embeddings.at(step):
            model(clips(step))
            assert model.temporal_size == t
        assert model.places == [(a, b, c) for a in range(t) for b in range(h) for c in range(w)]
        assert (model.spatial_size, model.temporal_size) == ((4, 4), 4)


def test_v_jepa_2_gives_each_patch_its_place():
    transformers = pytest.importorskip("transformers", reason="transformers is missing: V-JEPA 2 was NOT run")
    sizes = {"patch_size": 16, "crop_size": 64, "frames_per_clip": 8, "tubelet_size": 2, "hidden_size": 48}
    heads = {"num_attention_heads": 2, "num_hidden_layers": 2, "pred_hidden_size": 48, "pred_num_attention_heads": 2}
    torch.manual_seed(0)
    config = transformers.VJEPA2Config(**sizes, **heads, pred_num_hidden_layers=1)
    model, saved = transformers.VJEPA2Model(config).eval(), config.to_dict()
    embeddings = PositionEmbeddings(model, SCHEDULE.shape, patch=(2, 16, 16))
    assert "encoder.layer.1.attention.grid_size, encoder.layer.1.attention.grid_depth" in repr(embeddings)
    for step in STEPS:
        # What the fitted model must be: one that is built for the step, with the same weights.
        built = transformers.VJEPA2Config(
            **{**sizes, "crop_size": step.shape.h, "frames_per_clip": step.shape.t}, **heads, pred_num_hidden_layers=1
        )
        other = transformers.VJEPA2Model(built).eval()
        other.load_state_dict(model.state_dict())
        x = clips(step, most=1).transpose(1, 2)
        with embeddings.at(step):
            found = model(x, skip_predictor=True).last_hidden_state
        torch.testing.assert_close(found, other(x, skip_predictor=True).last_hidden_state)
    assert config.to_dict() == saved


@pytest.mark.parametrize("version", [1, 2])
def test_mvit_of_torchvision(version):
    imported("torchvision")
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    blocks = [
        MSBlockConfig(heads, channels, out, [3, 3, 3], [3, 3, 3], stride_q, stride_kv)
        for heads, channels, out, stride_q, stride_kv in (
            (1, 16, 32 if version == 1 else 16, [1, 1, 1], [1, 2, 2]),
            (2, 32 if version == 1 else 16, 32, [1, 2, 2], [1, 1, 1]),
        )
    ]
    second = {"residual_pool": True, "rel_pos_embed": True, "proj_after_attn": True} if version == 2 else {}
    first = {"residual_pool": False, "rel_pos_embed": False, "proj_after_attn": False}
    options = {**first, **second, "residual_with_cls_embed": version == 1}
    model = MViT((64, 64), 8, blocks, num_classes=5, **options)
    embeddings = PositionEmbeddings(model, SCHEDULE.shape, patch=(2, 4, 4))
    for step in STEPS:
        model.zero_grad()
        with embeddings.at(step):
            model(clips(step)).square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.pos_encoding.spatial_size == (16, 16)
