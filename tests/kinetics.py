"""The paper's training of SlowFast on Kinetics-400, as a schedule."""

from pymultigrid import Schedule, Shape

KINETICS = {"samples": 240_436, "epochs": 239, "lr_drops": (94, 154, 196)}


def kinetics(**options):
    return Schedule(Shape(8, 32, 224, 224), **{**KINETICS, "processes": 8, **options})
