"""Two processes on one batch: what one process computes, up to rounding. Started by torchrun and by accelerate, with gloo, on the CPU."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusion_core.schedules import normal_like
from diffusion_core.training import processes
from diffusion_core.training.checkpoint import NAME, parse

BIN = Path(sys.executable).parent
SCRIPT = """
    import hashlib, json, os, sys, torch
    from pathlib import Path
    from accelerate import Accelerator
    from safetensors.torch import save_file
    from diffusion_core import MLP, Denoiser, LinearVP, LossSecondMoment, UNet, fit, losses, targets, uniform_times
    from diffusion_core.schedules import normal_like
    from diffusion_core.training.identity import described

    place, case = Path(sys.argv[1]), sys.argv[2]
    rank = int(os.environ.get("RANK", 0))
    gradients, drawn = [], []
    clip = Accelerator.clip_grad_norm_

    def before_clipping(self, parameters, norm):
        parameters = list(parameters)
        gradients.append(torch.cat([p.grad.flatten() for p in parameters]).clone())
        return clip(self, parameters, norm)

    Accelerator.clip_grad_norm_ = before_clipping

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    def flat(denoiser):
        return torch.cat([p.detach().flatten() for p in denoiser.parameters()])

    def watched_loss(denoiser, x0, t, weight=None, generator=None, **cond):
        drawn.append(torch.cat([x0.flatten(1), t[:, None].to(x0), *(c[:, None].to(x0) for c in cond.values())], 1))
        return losses.denoising_loss(denoiser, x0, t, weight, generator, **cond)

    def settings(case):
        common = dict(batch_size=8, generator=seeded(3), clip=0.05, progress=True, precision="fp32")
        if case == "images":
            return Denoiser(UNet(width=8, num_classes=3).double(), LinearVP(), targets.v), (torch.rand(40, 1, 8, 8, generator=seeded(1)).double(), {"label": torch.arange(40) % 3}), dict(common, label_dropout=0.5)
        dtype = torch.float64 if case == "float64" else torch.float32
        data = torch.randn(100, 2, generator=seeded(1)).to(dtype)
        return Denoiser(MLP(2, width=16).to(dtype), LinearVP(), targets.v), data, dict(common, times=LossSecondMoment(3, history=2))
"""
TRAIN = """
    torch.manual_seed(rank)  # the first process's weights must win
    denoiser, data, given = settings(case)
    os.chdir(Path(sys.argv[3]) / str(rank)) if len(sys.argv) > 3 else None
    saved = {"checkpoint": "run", "checkpoint_every": 4} if len(sys.argv) > 3 else {}
    average, history = fit(denoiser, data, 12, loss=watched_loss, **given, **saved)
    learned = given["times"].probabilities if "times" in given else torch.zeros(1)
    out = {"gradient": gradients[0], "raw": flat(denoiser), "average": flat(average), "losses": history, "learned": learned, "drawn": torch.stack(drawn)}
    save_file(out, place / f"{case}.{rank}.of.{os.environ.get('WORLD_SIZE', 1)}.safetensors")
"""
LAUNCHERS = {
    "torchrun": [BIN / "torchrun", "--nproc_per_node=2", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"],
    "accelerate": [BIN / "accelerate", "launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"],
}


def start(launcher: list, folder: Path, body: str, *arguments, timeout: float = 200) -> subprocess.CompletedProcess:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(body))
    command = [str(part) for part in (*launcher, script, folder, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={key: value for key, value in os.environ.items() if key != "RANK"})


def trained(launcher: list, folder: Path, case: str, *arguments) -> list[dict[str, torch.Tensor]]:
    done = start(launcher, folder, TRAIN, case, *arguments)
    assert done.returncode == 0, done.stderr
    count = 1 if launcher == [sys.executable] else 2
    return [load_file(folder / f"{case}.{rank}.of.{count}.safetensors") for rank in range(count)]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative to the length of the first."""
    return ((one - other).norm() / one.norm()).item()


@pytest.mark.parametrize("case, launcher, tolerance", [("float64", "torchrun", 1e-12), ("float32", "accelerate", 1e-6), ("images", "torchrun", 1e-12)])
def test_two_processes_equal_one(case, launcher, tolerance, tmp_path):
    """The first gradient before clipping, all losses, raw and averaged weights and what adaptive times learned; measured: 1e-16, 1e-7, 1e-6."""
    (whole,) = trained([sys.executable], tmp_path, case)
    pair = trained(LAUNCHERS[launcher], tmp_path, case)
    for name in ("gradient", "raw", "average", "losses", "learned"):
        assert torch.equal(pair[0][name], pair[1][name]), name
        if whole[name].abs().sum() > 0:
            assert apart(whole[name], pair[0][name]) < tolerance, name
    assert torch.equal(torch.cat([pair[0]["drawn"], pair[1]["drawn"]], 1), whole["drawn"]), "samples, times and dropped labels are those of one process, row by row"
    assert not torch.equal(pair[0]["drawn"], pair[1]["drawn"])
    assert whole["gradient"].norm() > 0.05, "the gradient has to be clipped for this test to see on which gradient that is done"


def test_a_run_of_one_process_goes_on_with_two_and_the_first_alone_writes(tmp_path):
    (whole,) = trained([sys.executable], tmp_path, "float64")
    first, second = tmp_path / "0", tmp_path / "1"
    for folder in (first, second):
        folder.mkdir()
    die_in_step_6 = """
    def dies(self, parameters, norm, inner=Accelerator.clip_grad_norm_):
        if len(gradients) == 6:
            os._exit(7)
        return inner(self, parameters, norm)
    Accelerator.clip_grad_norm_ = dies
    """
    assert start([sys.executable], tmp_path, die_in_step_6 + TRAIN, "float64", tmp_path).returncode == 7
    file = first / "run" / NAME
    assert parse(file, file.read_bytes())[0]["step"] == 4
    pair = trained(LAUNCHERS["torchrun"], tmp_path, "float64", tmp_path)
    assert parse(file, file.read_bytes())[0]["step"] == 12 and pair[0]["drawn"].shape[0] == 8
    assert list(second.iterdir()) == [], "the second process runs in a folder of its own and leaves nothing there, not even the folder"
    for name in ("raw", "average", "losses", "learned"):
        assert torch.equal(pair[0][name], pair[1][name]) and apart(whole[name], pair[0][name]) < 1e-12, name


# what is changed, the error of the first process, the error of the second
REFUSED = {
    "other data": ("data = data + rank", "ValueError: fit: processes [1] were called with other data or settings than process 0", None),
    "other settings": ("given['lr'] = 0.1 * (1 + rank)", "ValueError: fit: processes [1] were called with other data or settings than process 0", None),
    "its own noise": ("given['loss'] = lambda d, x, t, w, generator: torch.randn(x.shape, generator=generator)", "TypeError", None),
    "two rows a sample": ("given['loss'] = lambda d, x, t, w, generator: normal_like(torch.cat([x, x]), generator)", "ValueError: the loss asks for noise of 8 rows, a process has 4", None),
    "an odd batch": ("given['batch_size'] = 7", "ValueError: fit: batch_size=7 must be a positive multiple of the 2 processes", None),
    "a damaged checkpoint": ("given['checkpoint'] = place / 'bad'", "is no checkpoint of diffusion_core", None),
    "a full disk": ("given['checkpoint'] = place / 'full'; full_at = 2", "OSError: [Errno 28] No space left on device", "OSError: fit: process 0 could not write the checkpoint"),
    "nan": ("data = data * 1e30", "Diverged: fit stopped at step", None),
}
REFUSE = """
    errors, full_at, replace = {}, 0, os.replace

    def full_disk(half, file):
        global full_at
        full_at -= 1
        if full_at == 0:
            raise OSError(28, "No space left on device")
        replace(half, file)

    os.replace = full_disk
    for name, change in json.loads((place / "changes.json").read_text()).items():
        denoiser, data, given = settings("float32")
        exec(change)
        try:
            fit(denoiser, data, 12, **given)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    (place / f"errors.{rank}").write_text(json.dumps(errors))
"""


def test_what_is_refused_is_refused_by_all(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / NAME).write_bytes(b"something else")
    (tmp_path / "changes.json").write_text(json.dumps({name: change for name, (change, *_) in REFUSED.items()}))
    done = start(LAUNCHERS["torchrun"], tmp_path, REFUSE, "x")
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        errors = json.loads((tmp_path / f"errors.{rank}").read_text())
        for name, (_, first, second) in REFUSED.items():
            assert (second if rank and second else first) in errors[name], (rank, name)
    full = tmp_path / "full" / NAME
    assert parse(full, full.read_bytes())[0]["step"] == 0, "the checkpoint before still stands"


FAILURES = {
    "an exception in one process": ("if rank == 1: denoiser.net.register_forward_pre_hook(lambda *_: 1 / 0)", "ZeroDivisionError"),
    "a checkpoint that has no place": ("Path(place / 'file').write_text(''); given['checkpoint'] = place / 'file' / 'x'", "NotADirectoryError"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_in_one_process_ends_the_run(what, tmp_path):
    """With its message, and soon: nobody waits for a process that is gone."""
    change, message = FAILURES[what]
    begun = time.monotonic()
    done = start(LAUNCHERS["torchrun"], tmp_path, f"    denoiser, data, given = settings('float32')\n    {change}\n    fit(denoiser, data, 12, **given)\n", "x", timeout=150)
    assert done.returncode != 0 and message in done.stderr
    assert time.monotonic() - begun < 120


def test_only_the_first_process_shows_progress(tmp_path):
    body = """
    denoiser, data, given = settings("float32")
    shown = []
    from diffusion_core.progress import Line
    Line.show = lambda self, text: shown.append(text) if self.place else None
    fit(denoiser, data, 2, **given)
    (place / f"shown.{rank}").write_text(str(len(shown)))
    """
    assert start(LAUNCHERS["torchrun"], tmp_path, body, "x").returncode == 0
    assert int((tmp_path / "shown.0").read_text()) >= 1 and (tmp_path / "shown.1").read_text() == "0"


class TestShare:
    """The rows of one process are those of the whole batch's draw, in whatever dtype, shape and number of processes."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("count", [2, 3])
    def test_the_shares_make_up_the_whole(self, dtype, count):
        x = torch.zeros(12, 3, 5, dtype=dtype)
        whole = normal_like(x, torch.Generator().manual_seed(1))
        share = 12 // count
        rows = [slice(rank * share, (rank + 1) * share) for rank in range(count)]
        parts = [normal_like(x[mine], processes.Share(torch.Generator().manual_seed(1), mine, 12)) for mine in rows]
        assert torch.equal(torch.cat(parts), whole) and parts[0].dtype == dtype

    def test_draws_follow_one_another(self):
        generator, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
        share, x = processes.Share(other, slice(4, 8), 8), torch.zeros(8, 2)
        assert torch.equal(normal_like(x, generator)[4:], normal_like(x[4:], share))
        assert torch.equal(normal_like(x, generator)[4:], normal_like(x[4:], share))

    def test_it_is_no_generator(self):
        share = processes.Share(torch.Generator(), slice(0, 4), 8)
        with pytest.raises(TypeError):
            torch.randn(4, generator=share)
        with pytest.raises(ValueError, match="noise of 3 rows, a process has 4"):
            normal_like(torch.zeros(3, 2), share)
