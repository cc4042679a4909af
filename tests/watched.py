"""Real training processes, watched: ``python watched.py LOG SCRIPT ARGUMENTS...`` runs a script as it is.

Torch's global hooks see the model's inputs and the optimizer, whatever loop or framework drives them. Each process
appends a JSON line for every optimizer step to LOG.<rank>: pid, learning rate, sub-batches, the shapes and digests of
the clips, and digests of the weights after the step. One of several processes leaves by `processes.leave`.
"""

import hashlib
import json
import math
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
VIDEOS_PER_CLASS = 10


def write_videos(root):
    """Write two classes of videos that a small net can tell apart, of 20 frames and more, and return the folder."""
    import mp4

    for label, name in enumerate(("dim", "light")):
        (root / name).mkdir(parents=True)
        for i in range(VIDEOS_PER_CLASS):
            mp4.write(root / name / f"{i}.mp4", frames=20 + i, tint=20 + 90 * label)
    return root


def start(folder, script, *arguments, processes=None, torchrun=()):
    """Start a watched training in `folder`; with `processes` under torchrun, whose own options are `torchrun`."""
    launch = [] if processes is None else ["-m", "torch.distributed.run", "--standalone", *torchrun]
    if processes is not None:
        launch.append(f"--nproc-per-node={processes}")
    command = [sys.executable, *launch, __file__, folder / "log", script, *arguments]
    ours = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(EXAMPLES),
        # Hugging Face sees several processes without a GPU; `accelerate launch --cpu` sets it.
        "ACCELERATE_USE_CPU": "true",
        # Restarted processes don't find the addresses of the dead ones; see docs/torch.md.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    with (folder / "out").open("a") as out:
        # A session of its own: killing it kills the data loader's workers too.
        return subprocess.Popen(
            list(map(str, command)), cwd=folder, env=os.environ | ours, stdout=out, stderr=out, start_new_session=True
        )


def finish(process, folder):
    """Wait for a training that must end well."""
    code = process.wait(timeout=1200)
    assert code == 0, (folder / "out").read_text()[-8000:]


def edited(example, folder, *changes):
    """Copy an example as somebody who changes it would, by (old, new) pieces of its text, and return the copy."""
    text = (EXAMPLES / example).read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{example} has no {old!r} to change"
        text = text.replace(old, new)
    copy = folder / example
    copy.write_text(text)
    return copy


def steps(folder, rank=0):
    """Read what a process wrote down: a dict for each optimizer step; a line that was cut short is left out."""
    log = folder / f"log.{rank}"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def baseline_cosine(schedule, base_lr):
    """The learning rates that a schedule asks of a cosine, in closed form."""
    n = schedule.baseline_iterations
    return [
        step.lr_scale * base_lr * (1 + math.cos(math.pi * math.floor(step.progress * n + 1e-6) / n)) / 2
        for step in schedule
    ]


def digest(tensor):
    tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return hashlib.sha1(tensor.detach().cpu().contiguous().numpy()).hexdigest()


def watch(log):
    """Register the hooks."""
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    from pymultigrid.torch import SubBatchNorm

    step = {"shapes": [], "clips": [], "splits": []}

    def before_forward(module, args):
        if module.training and torch.is_grad_enabled():
            if isinstance(module, torch.nn.Conv3d) and module.in_channels == 3:
                step["shapes"].append(list(args[0].shape))
                step["clips"] += [digest(clip) for clip in args[0]]
            elif isinstance(module, SubBatchNorm):
                step["splits"].append(module.splits)

    def before_step(optimizer, args, kwargs):
        step["lr"] = optimizer.param_groups[0]["lr"]

    def after_step(optimizer, args, kwargs):
        if not step["shapes"]:  # torch.distributed.checkpoint fills an optimizer's state by a step without a forward
            return
        weights = [digest(p) for group in optimizer.param_groups for p in group["params"]]
        with log.open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), "weights": weights, **step}) + "\n")
        step.update(shapes=[], clips=[], splits=[])

    register_module_forward_pre_hook(before_forward)
    register_optimizer_step_pre_hook(before_step)
    register_optimizer_step_post_hook(after_step)
    torch.manual_seed(0)


if __name__ == "__main__":
    watch(Path(f"{sys.argv[1]}.{os.environ.get('RANK', 0)}"))
    # What our code warns of, and what it makes torch warn of, is an error; a framework's own remarks are its own.
    for module in (r"pymultigrid\.", "__main__", "small_cnn", r"torch\.optim", r"torch\.utils\.data"):
        warnings.filterwarnings("error", module=module)
    warnings.filterwarnings("error", message="Detected call of `lr_scheduler")
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than this machine has cores
    sys.argv = sys.argv[2:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
    if "RANK" in os.environ:
        from processes import leave, workers_of_gloo

        print(f"rank {os.environ['RANK']} leaves {workers_of_gloo()} workers of gloo")
        leave()
