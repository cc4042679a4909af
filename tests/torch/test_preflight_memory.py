"""preflight: the memory that it counts, and what happens where there is too little, also on one process of two."""

import math
import os
import re
import subprocess
import sys
import textwrap

import pytest
import torch
from test_preflight import FULL, fly, net

from pymultigrid import Schedule
from pymultigrid.torch._passes import Alive


def test_memory_follows_the_batch_and_the_clip():
    """Activations are in proportion to the sampling points, where nothing is rounded away by strides."""
    schedule = Schedule(FULL, samples=100, epochs=20, batch_growth=0, multiple_of=8)
    report = fly(net(), schedule)
    full = report[FULL]
    for row in report.rows:
        assert row.bytes == pytest.approx(full.bytes * math.prod(row.shape) / math.prod(FULL), rel=0.05)
    size = sum(p.nbytes * 2 for p in net().parameters()) + sum(b.nbytes for b in net().buffers())
    assert report.resident == size


def test_memory_is_the_bytes_alive_at_once():
    kept = torch.ones(1000)
    with Alive() as made:
        kept.mul_(2)  # in place: nothing new
        a = kept + 1
        b = a * 2
        view = b[:10]
        del a
        c = b + 1
        del b
        assert made.now == 2 * 4000  # b lives in its view
        d = torch.cat([c, c])
        assert made.now == made.peak == 4 * 4000
        del c, d, view
    assert (made.now, made.peak) == (0, 16_000)


WIDE = """
    import os, resource, sys, time, warnings
    import torch
    from pymultigrid import Cycles, Schedule, Shape
    from pymultigrid.torch import preflight

    class Wide(torch.nn.Module):
        '''A clip takes two megabytes, however small it is.'''
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(2**19))

        def forward(self, clips):
            return clips.mean((1, 2, 3, 4))[:, None] * self.weight

    def allow(megabytes):
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20,) * 2)

    torch.set_num_threads(1)
    model = Wide()
    model(torch.rand(2, 3, 8, 32, 32)).square().mean().backward()
    given = dict(samples=100, epochs=20, plan=Cycles(short=None))
"""


def script(body, *command, **options):
    code = textwrap.dedent(WIDE) + textwrap.dedent(body)
    done = subprocess.run([sys.executable, *command, "-c", code], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="no RLIMIT_AS: out of memory was NOT tried")
def test_out_of_memory_is_found_and_mended():
    """A process that may take only so much: the coarse mini-batches do not fit, those planned from the costs do."""
    printed = script("""
        allow(250)
        schedule = Schedule(Shape(4, 8, 32, 32), **given)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = preflight(model, schedule, repeats=1, progress=False)
        print([str(w.message) for w in caught if w.category is RuntimeWarning])
        print([(str(row.shape), row.fits) for row in report.rows if row.fits < row.shape.b])
        schedule = Schedule(Shape(4, 8, 32, 32), **given, costs=report.costs)
        report = preflight(model, schedule, repeats=1, progress=False)
        print(report.warnings, max(row.bytes for row in report.rows) <= 1.05 * report[schedule.shape].bytes)
    """)
    told, fits, mended = printed.splitlines()
    assert fits == "[('32x2x23x23', 16)]" or fits.startswith("[('32x2x23x23', ")
    assert re.search(
        r"32x2x23x23 does not fit the memory of the CPU: it needs about \d+ MB, and \d+ of its 32 clips", told
    )
    assert "Training would have failed at step 0, in stage 0; plan again with costs=report.costs" in told
    assert mended == "() True"


def two_processes(path, body):
    path.write_text(textwrap.dedent(WIDE) + textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path)],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "agreed" in done.stdout
    return done


def test_processes_agree(tmp_path):
    """Two ranks under torchrun, one with less memory: no rank waits for another, and both report the same."""
    done = two_processes(
        tmp_path / "run.py",
        """
        import torch.distributed as dist
        dist.init_process_group("gloo")
        ddp = torch.nn.parallel.DistributedDataParallel(model)
        if dist.get_rank() == 1:
            allow(250)

        class Read:
            def __getitem__(self, sample):
                time.sleep(0.01 * dist.get_rank())

        schedule = Schedule(Shape(4, 8, 32, 32), processes=2, **given)
        warnings.simplefilter("ignore")
        report = preflight(ddp, schedule, repeats=2, progress=True, dataset=Read())
        reports = [None, None]
        dist.all_gather_object(reports, list(map(str, report.rows)))
        assert reports[0] == reports[1], reports
        assert any(row.fits < row.shape.b for row in report.rows), report.rows
        assert all(row.read_seconds >= 0.01 for row in report.rows), report.rows
        assert ddp.require_backward_grad_sync
        assert ddp.require_forward_param_sync
        print("agreed" if dist.get_rank() == 0 else "", flush=True)
        os._exit(0)  # see processes.leave
        """,
    )
    assert done.stderr.count("preflight: time:   0%") == 1  # one bar, not one a rank


@pytest.mark.skipif(sys.platform != "linux", reason="no RLIMIT_AS: out of memory was NOT tried")
def test_ranks_that_share_statistics_do_not_wait(tmp_path):
    """The full shape has 4 clips a process, so its statistics are shared; one rank is out of memory after them."""
    two_processes(
        tmp_path / "run.py",
        """
        import torch.distributed as dist
        from pymultigrid.torch import SubBatchNorm3d, sub_batches
        dist.init_process_group("gloo")
        norm = SubBatchNorm3d(3)
        model.weight = torch.nn.Parameter(torch.rand(2**22))  # 16 megabytes a clip
        schedule = Schedule(Shape(4, 8, 32, 32), processes=2, **{**given, "plan": Cycles(long=None, short=None)})
        with sub_batches(norm, schedule[0]):
            assert norm.ranks == 2
        if dist.get_rank() == 1:
            allow(250)
        warnings.simplefilter("ignore")
        (row,) = preflight(torch.nn.Sequential(norm, model), schedule, repeats=1, progress=False).rows
        assert row.fits < 4, row
        print("agreed", flush=True)
        os._exit(0)  # see processes.leave
        """,
    )
