"""A video read as if it had been taken at another rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pymultigrid._core import Grid
from pymultigrid._resample import resample
from pymultigrid._views import picked

if TYPE_CHECKING:
    from pymultigrid.video import Video


@dataclass(frozen=True, slots=True)
class AtRate:
    """A video as if it had been taken at `fps` frames a second: frame m is the one shown at m / fps seconds.

    Grids over it count in these frames, whatever the file's own rate, constant or not: an axis in seconds is
    ``grid.t.start / fps`` and ``grid.t.span / fps``. So one run can mix files of 24, 25, 30 and 60 frames a second.

    >>> import av, numpy, tempfile
    >>> path = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(path, "w") as file:
    ...     stream = file.add_stream("libx264", rate=30, width=64, height=48)
    ...     for level in range(40):
    ...         file.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), level, "uint8"))))
    ...     file.mux(stream.encode())
    >>> from pymultigrid.video import AtRate, Video
    >>> slow = AtRate(Video(path), fps=12)
    >>> slow.extent
    (16, 48, 64)
    >>> slow.source([0, 1, 2, 15])  # the file's frames
    [0, 2, 5, 37]

    Parameters
    ----------
    video
        A `Video`.
    fps
        Frames per second, above 0.
    """

    video: Video
    fps: float

    def __post_init__(self) -> None:
        check_fps(self.fps)

    @property
    def path(self) -> str:
        """The file's."""
        return self.video.path

    @property
    def extent(self) -> tuple[int, int, int]:
        """Frames at this rate, height and width in pixels."""
        frames, height, width = self.video.extent
        shown = int(Fraction(frames) / self.video.rate * self._fps)
        return max(1, shown), height, width

    @property
    def rate(self) -> Fraction:
        """Frames per second: `fps`."""
        return self._fps

    @property
    def times(self) -> None:
        """None: all frames are shown equally long."""
        return None

    @property
    def duration(self) -> float:
        """Seconds: frames / rate."""
        return float(self.extent[0] / self._fps)

    def source(self, frames: Sequence[int]) -> list[int]:
        """Return which frames of the file these are."""
        return self.video.shown([frame / self._fps for frame in frames])

    def read(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        """Decode frames, as `Video.read`."""
        count = self.extent[0]
        for frame in frames:
            if not 0 <= frame < count:
                raise ValueError(
                    f"{self.path}: frame {frame} at {self.fps} a second does not exist; there are 0 to {count - 1}"
                )
        return self.video.read(self.source(frames))

    def clip(self, grid: Grid, **options: Any) -> Any:
        """Read the clip on `grid`, as `Video.clip`."""
        return read_clip(self, grid, options)

    @property
    def _fps(self) -> Fraction:
        return Fraction(self.fps).limit_denominator(100_000)


def check_fps(fps: float) -> None:
    """Refuse a rate that no video can be read at."""
    if isinstance(fps, bool) or not isinstance(fps, (int, float, Fraction)):
        raise TypeError(f"fps ({fps!r}) must be a number, frames per second")
    if not 1e-3 <= fps <= 1e4:
        raise ValueError(f"fps ({fps}) must lie in [0.001, 10000], frames per second; 12.5, say")


def read_clip(video: Video | AtRate, grid: Grid, options: dict[str, Any]) -> Any:
    """Resample the frames that `grid` picks of a video, and decode no others."""
    if options.get("temporal", "nearest") != "nearest":
        raise ValueError(
            f'temporal ({options["temporal"]!r}) must be "nearest" here: a clip reads only the frames that the '
            "grid picks; resample(video.read(range(...)), grid, temporal=...) blends"
        )
    frames, _, _ = video.extent
    return resample(video.read(grid.frames(frames)), picked(grid), **options)
