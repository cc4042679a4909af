"""Multigrid training for video models: mini-batch shapes by schedule, and a clip resampler.

Source of the method: Wu, Girshick, He, Feichtenhofer, Krähenbühl, "A Multigrid Method for Efficiently Training Video
Models", CVPR 2020 (arXiv 1912.00998).
"""

try:
    from pymultigrid._core import Axis, Grid, Shape, Stage, Step
except ModuleNotFoundError as error:
    raise ImportError(
        "pymultigrid's compiled core is missing. In the source folder Python finds the sources instead of the "
        "installed package: run from another directory, or install with `pip install --editable .`"
    ) from error
from pymultigrid._plans import LONG_CYCLE, SHORT_CYCLE, Cycles, Phases, Progressive
from pymultigrid._progress import Progress
from pymultigrid._report import Report, ShapeCost
from pymultigrid._resample import cuda_available, cuda_missing, resample, set_buffer_limit
from pymultigrid._run_report import RunReport, ShapeTime
from pymultigrid._sample import Sample, mini_batch
from pymultigrid._schedule import Schedule
from pymultigrid._views import view_grids

__all__ = [
    "LONG_CYCLE",
    "SHORT_CYCLE",
    "Axis",
    "Cycles",
    "Grid",
    "Phases",
    "Progress",
    "Progressive",
    "Report",
    "RunReport",
    "Sample",
    "Schedule",
    "Shape",
    "ShapeCost",
    "ShapeTime",
    "Stage",
    "Step",
    "cuda_available",
    "cuda_missing",
    "mini_batch",
    "resample",
    "set_buffer_limit",
    "view_grids",
]
