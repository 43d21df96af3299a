"""Two processes on one batch: what one process computes, up to rounding. Started by torchrun and by accelerate, with gloo, on the CPU; `shared_runs.py` is what they run."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusion_core.schedules import normal_like
from diffusion_core.training import processes
from diffusion_core.training.checkpoint import NAME, parse

ALONE = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
RESULTS = ("gradient", "raw", "average", "losses", "learned")


def start(launcher: list, folder: Path, *task: str, timeout: float = 300) -> subprocess.CompletedProcess:
    command = [str(part) for part in (*launcher, Path(__file__).parent / "shared_runs.py", folder, *task)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def results(folder: Path, case: str, count: int) -> list[dict[str, torch.Tensor]]:
    return [load_file(folder / f"{case}.{rank}.of.{count}.safetensors") for rank in range(count)]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative to the length of the first."""
    return ((one - other).norm() / one.norm()).item()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which every case was trained by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    for launcher, cases in ((ALONE, ("float64", "images", "float32")), (TORCHRUN, ("float64", "images")), (ACCELERATE, ("float32",))):
        done = start(launcher, folder, "train", *cases)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("case, tolerance", [("float64", 1e-12), ("images", 1e-12), ("float32", 1e-6)])
def test_two_processes_equal_one(case, tolerance, trained):
    """The first gradient before it is clipped, the losses, the raw and the averaged weights and what adaptive times learned."""
    (whole,), pair = results(trained, case, 1), results(trained, case, 2)
    for name in RESULTS:
        assert torch.equal(pair[0][name], pair[1][name]), f"{name}: the two processes end alike"
        assert apart(whole[name], pair[0][name]) < tolerance, name
    assert whole["gradient"].norm() > 0.1, "long enough to be clipped"


@pytest.mark.parametrize("case", ["float64", "images", "float32"])
def test_samples_times_and_labels_are_those_of_one_process_row_by_row(case, trained):
    (whole,), (first, second) = results(trained, case, 1), results(trained, case, 2)
    assert torch.equal(torch.cat([first["batches"], second["batches"]], 1), whole["batches"])
    assert first["batches"].shape[:2] == (12, 4) and not torch.equal(first["batches"], second["batches"])


def test_a_run_of_one_process_goes_on_with_two_and_the_first_alone_writes(trained, tmp_path):
    for rank in "01":
        (tmp_path / rank).mkdir()
    assert start(ALONE, tmp_path, "resume", "6").returncode == 7
    file = tmp_path / "0" / "run" / NAME
    assert parse(file, file.read_bytes())[0]["step"] == 4
    done = start(TORCHRUN, tmp_path, "resume", "100")
    assert done.returncode == 0, done.stderr
    (whole,), pair = results(trained, "float64", 1), results(tmp_path, "float64", 2)
    assert parse(file, file.read_bytes())[0]["step"] == 12 and pair[0]["batches"].shape[0] == 8
    assert list((tmp_path / "1").iterdir()) == [], "the second process leaves nothing in its own folder"
    assert [path.name for path in (tmp_path / "0" / "run").iterdir()] == [NAME]
    for name in ("raw", "average", "losses", "learned"):
        assert torch.equal(pair[0][name], pair[1][name]) and apart(whole[name], pair[0][name]) < 1e-12, name


def test_torchrun_starts_a_killed_run_anew_and_it_ends_where_it_would_have(trained, tmp_path):
    """One of two processes is killed after step 6 of 12: both are started again, go on at the checkpoint of step 4 and end with the same bits.

    Without a meeting place of its own the restarted group sees what the dead one left, their addresses too, and may or may not stop or hang.
    """
    done = start([*TORCHRUN, "--max-restarts=1"], tmp_path, "restart", timeout=120)
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr
    assert [(tmp_path / f"sees.{rank}").read_text() for rank in (0, 1)] == ["False", "False"]
    for again, straight in zip(results(tmp_path, "float64", 2), results(trained, "float64", 2)):
        assert again["batches"].shape[0] == 8 and torch.equal(again["batches"], straight["batches"][4:])
        for name in ("raw", "average", "losses", "learned"):
            assert torch.equal(again[name], straight[name]), name


def test_a_plain_script_leaves_the_group_at_its_end(tmp_path):
    done = start(TORCHRUN, tmp_path, "end")
    assert done.returncode == 0 and "destroy_process_group" not in done.stderr, done.stderr
    assert [(tmp_path / f"end.{rank}").read_text() for rank in (0, 1)] == ["left", "left"]


# the error of the first process, and of the second where it is another
REFUSED = {
    "other data": ("ValueError: fit: processes [1] were called with other data or settings than process 0",),
    "other settings": ("ValueError: fit: processes [1] were called with other data or settings than process 0",),
    "its own noise": ("TypeError: randn()",),
    "two rows a sample": ("ValueError: the loss asks for noise of 8 rows, a process has 4",),
    "an odd batch": ("ValueError: fit: batch_size=7 must be a positive integer, a multiple of the 2 processes",),
    "an empty checkpoint": ("its beginning is damaged (0 bytes)",),
    "a damaged checkpoint": (f"{NAME} is no checkpoint of diffusion_core",),
    "a full disk": ("OSError: [Errno 28] No space left on device", "OSError: fit: process 0 could not write the checkpoint"),
    "too large": ("ValueError: fit: the data have a root mean square of",),
    "an infinite loss": ("Diverged: fit stopped at step 0 of 12: the loss is inf",),
}


def test_what_is_refused_is_refused_by_all_and_the_first_alone_shows_progress(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / NAME).write_bytes(b"something else")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / NAME).touch()
    done = start(TORCHRUN, tmp_path, "refuse")
    assert done.returncode == 0, done.stderr
    said = [json.loads((tmp_path / f"said.{rank}").read_text()) for rank in (0, 1)]
    for rank in (0, 1):
        assert said[rank]["errors"].keys() == REFUSED.keys()
        for name, messages in REFUSED.items():
            assert messages[min(rank, len(messages) - 1)] in said[rank]["errors"][name], (rank, name)
    full = tmp_path / "full" / NAME
    assert parse(full, full.read_bytes())[0]["step"] == 0, "the checkpoint before still stands"
    assert said[0]["lines"] >= 1 and said[1]["lines"] == 0


@pytest.mark.parametrize("how, message", [("network", "ZeroDivisionError"), ("folder", "NotADirectoryError")])
def test_a_failure_in_one_process_ends_the_run(how, message, tmp_path):
    """With its message, and soon: nobody waits for a process that is gone."""
    (tmp_path / "file").write_text("")
    begun = time.monotonic()
    done = start(TORCHRUN, tmp_path, "fail", how, timeout=150)
    assert done.returncode != 0 and message in done.stderr
    assert time.monotonic() - begun < 120


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
