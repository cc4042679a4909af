"""How large a model's feature maps are at a shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import keras
from keras.src.backend import compute_output_spec

from pymultigrid import Shape
from pymultigrid._preflight import Extents, feature_maps

_CONVOLUTIONS = tuple(
    getattr(keras.layers, name)
    for name in ("Conv2D", "Conv3D", "DepthwiseConv2D", "SeparableConv2D")
    if hasattr(keras.layers, name)
)


Maps = tuple[Extents, Extents]


class FeatureMaps:
    """What the convolutions of a model are given and give at each shape, as far as Keras can follow its call.

    No number is computed: Keras knows the shapes without. Convolutions inside of an attention make its queries and
    keys, not the model's maps; they are left out.
    """

    def __init__(self, model: Any, clips: dict[Shape, Any]) -> None:
        layers = model._flatten_layers
        attentions = [layer for layer in layers() if "attention" in type(layer).__name__.lower()]
        inside = {id(part) for layer in attentions for part in layer._flatten_layers()}
        convolutions = [x for x in layers() if isinstance(x, _CONVOLUTIONS) and id(x) not in inside]
        self._layers = {str(place): layer for place, layer in enumerate(convolutions)}
        self._found: dict[Shape, dict[str, Maps]] = {}
        # A model may ask for numbers, and fail in any way then: it is trained all the same, and nothing is known here.
        with suppress(Exception):
            self._found = {shape: self._extents(model, given) for shape, given in clips.items()}

    def smallest(self, shape: Shape) -> Extents | None:
        """Return the fewest frames and the smallest height and width of the feature maps at a shape."""
        return feature_maps(self._found)[shape] if self._found else None

    @property
    def patch(self) -> tuple[int, int, int] | None:
        """The patch of a model whose only convolutions cut the clips themselves, without an overlap."""
        patches = set()
        for shape, maps in self._found.items():
            for name, (given, _) in maps.items():
                stride = tuple(self._layers[name].strides)
                whole = given == tuple(shape)[-len(given) :]
                if not whole or tuple(self._layers[name].kernel_size) != stride or max(stride) == 1:
                    return None
                frames, rows, columns = (1, *stride)[-3:]
                patches.add((frames, rows, columns))
        return patches.pop() if len(patches) == 1 else None

    def _extents(self, model: Any, clips: Any) -> dict[str, Maps]:
        """Return the extents of each convolution's smallest input and output."""
        smallest: dict[str, Maps] = {}

        def watched(name: str, layer: Any) -> Callable[..., Any]:
            axes = slice(1, -1) if layer.data_format == "channels_last" else slice(2, None)
            usual = layer.call

            def call(inputs: Any, *args: Any, **options: Any) -> Any:
                outputs = usual(inputs, *args, **options)
                maps = tuple(inputs.shape[axes]), tuple(outputs.shape[axes])
                smallest[name] = min(smallest.get(name, maps), maps, key=lambda each: math.prod(each[1]))
                return outputs

            return call

        given = keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, str(x.dtype)), clips)
        try:
            for name, layer in self._layers.items():
                vars(layer)["call"] = watched(name, layer)  # past Keras' own bookkeeping of attributes
            compute_output_spec(lambda x: model(x, training=False), given)
        finally:
            for layer in self._layers.values():
                vars(layer).pop("call", None)
        return smallest
