"""Damaged videos in a data set that others are drawn for."""

from __future__ import annotations

import warnings

import numpy as np

from pymultigrid._sample import Sample

_MOST = 10  # one in so many videos may be damaged, and one in any case


class Skipped:
    """What was found to be damaged in this process, and what is read in its place."""

    def __init__(self, videos: int) -> None:
        self._videos = videos
        self.reasons: dict[str, str] = {}

    def note(self, path: str, reason: str) -> None:
        """Say that a clip of a video could not be read, once; stop where too many videos are like that."""
        if path in self.reasons:
            return
        self.reasons[path] = reason
        count, most = len(self.reasons), max(1, self._videos // _MOST)
        if count > most:
            raise ValueError(
                f'damaged="skip": {count} of {self._videos} videos are damaged, and {most} may be (one in {_MOST}); '
                f"copy the data set again, or check it: dataset.save_index names them all. The last one: {reason}"
            )
        warnings.warn(
            f"other videos are read in place of damaged clips ({count} of {self._videos} videos so far in this "
            f"process): {reason}",
            RuntimeWarning,
            stacklevel=2,
        )


def drawn_instead(sample: Sample, attempt: int, videos: int) -> int:
    """Return which video a sample reads in place of a damaged one: the same in every process, and after a resume."""
    draw = np.random.SeedSequence((sample.seed, sample.position, attempt)).generate_state(1, np.uint64)[0]
    return int(draw) % videos
