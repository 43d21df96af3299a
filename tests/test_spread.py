"""spread: the samples of many processes are those of one, bit for bit, whatever n, and each batch is drawn once."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from diffusion_core import LinearVP, ddim, last, ring, spread, uniform

SCRIPT = textwrap.dedent("""
    import os, sys
    import torch
    from safetensors.torch import save_file
    from diffusion_core import LinearVP, ddim, last, ring, spread, uniform

    n, batch_size, seed, kind, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    rank = os.environ.get("RANK", "alone")
    schedule, drawn = LinearVP(), []
    denoise = ring().denoiser(schedule)

    def draw(rows, generator):
        if kind == "fail" and rows[0] > 0:
            raise RuntimeError("a GPU fell off")
        drawn.append(rows)
        x = schedule.noise((len(rows), 2), generator)
        x = last(ddim(denoise, schedule, x, uniform(5), eta=1.0, generator=generator))
        x = torch.cat([x, rows[:, None].float()], dim=1)
        other = torch.float64 if rows[0] > 0 else torch.float32
        return {"mixed": x.to(other), "shapes": x[:, : 2 + int(rows[0] == 0)], "float": x, "bytes": (100 * x).abs().to(torch.uint8)[:, None, None], "double": x.double()[:, 0], "fail": x}[kind]

    generator = torch.Generator().manual_seed(seed + (0 if rank == "alone" else int(rank)))
    x = spread(draw, n, batch_size, generator)
    mine = torch.cat(drawn) if drawn else torch.empty(0, dtype=torch.int64)
    save_file({"x": x.contiguous(), "mine": mine}, f"{folder}/{rank}.safetensors")
""")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(len(rows), 2, generator=generator)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("spread") / "script.py"
    path.write_text(SCRIPT)
    return path


def launched(script, folder, processes, *arguments, launcher="torchrun", timeout=240):
    begin = {
        "torchrun": ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"],
        "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"],
    }[launcher]
    line = [sys.executable, *begin, script, *arguments, folder]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "DIFFUSION_CORE_DEVICE": "cpu"}
    return subprocess.run([str(part) for part in line], capture_output=True, text=True, timeout=timeout, env=env)


@pytest.mark.parametrize(
    "processes, n, batch_size, kind, launcher",
    [(2, 11, 3, "float", "torchrun"), (2, 5, 8, "bytes", "torchrun"), (3, 10, 3, "double", "torchrun"), (2, 11, 3, "float", "accelerate")],
)
def test_processes_draw_what_one_draws(script, tmp_path, processes, n, batch_size, kind, launcher):
    """Uneven n; fewer batches than processes; other dtypes and shapes. The ranks are given other seeds: the first one's counts."""
    subprocess.run([sys.executable, script, str(n), str(batch_size), "7", kind, tmp_path], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    done = launched(script, tmp_path, processes, n, batch_size, 7, kind, launcher=launcher)
    assert done.returncode == 0, done.stderr
    alone = load_file(tmp_path / "alone.safetensors")["x"]
    ranks = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(processes)]
    assert len(alone) == n and all(torch.equal(rank["x"], alone) and rank["x"].dtype == alone.dtype for rank in ranks)
    assert torch.cat([rank["mine"] for rank in ranks]).sort().values.tolist() == list(range(n))
    assert max(len(rank["mine"]) for rank in ranks) <= batch_size * -(-n // (batch_size * processes))


def test_a_process_that_fails_ends_the_run(script, tmp_path):
    done = launched(script, tmp_path, 2, 6, 3, 0, "fail", timeout=120)
    assert done.returncode != 0 and "a GPU fell off" in done.stderr


@pytest.mark.parametrize("kind, message", [("mixed", r"batch 1 is torch.float64 (3, 3) and batch 0 has samples torch.float32 (3,)"), ("shapes", "batch 1 is torch.float32 (3, 2) and batch 0 has samples torch.float32 (3,)")])
def test_processes_whose_samples_differ_in_kind_are_told(kind, message, script, tmp_path):
    """Instead of waiting for each other, or of taking one's bytes for the other's."""
    done = launched(script, tmp_path, 2, 6, 3, 0, kind, timeout=120)
    assert done.returncode != 0 and message in done.stderr


def test_batches_have_their_own_noise_and_rows_in_order():
    seen: list[list[int]] = []

    def draw(rows, generator):
        seen.append(rows.tolist())
        return torch.cat([rows[:, None].float(), points(rows, generator)], dim=1)

    x = spread(draw, 10, 4, seeded())
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert x[:, 0].tolist() == list(range(10)) and x[:, 1:].unique().numel() == 20


def test_the_seed_decides_and_more_samples_begin_alike():
    x = spread(points, 10, 4, seeded(1))
    assert torch.equal(x, spread(points, 10, 4, seeded(1)))
    assert not torch.equal(x, spread(points, 10, 4, seeded(2)))
    assert torch.equal(x[:8], spread(points, 1000, 4, seeded(1))[:8])


def test_one_generator_used_twice_gives_other_samples():
    generator = seeded()
    assert not torch.equal(spread(points, 4, 4, generator), spread(points, 4, 4, generator))


def test_without_a_generator_torchs_own_seeds_it():
    torch.manual_seed(3)
    x = spread(points, 4)
    torch.manual_seed(3)
    assert torch.equal(x, spread(points, 4))


def test_the_samples_have_the_samplers_law():
    """Standard normal coordinates: the mean of 4,000 batches of one is within five standard errors, which one seed for all batches would not be."""
    x = spread(points, 4000, 1, seeded())
    assert x.mean(0).abs().max() < 5 / 4000**0.5 and abs(x.var() - 1) < 5 * (2 / 8000) ** 0.5


def test_gradients_are_off_and_the_result_is_on_the_cpu():
    weight = torch.ones(2, requires_grad=True)
    modes = []

    def draw(rows, generator):
        modes.append(torch.is_grad_enabled())
        return points(rows, generator) * weight

    x = spread(draw, 3, 2, seeded())
    assert modes == [False, False] and not x.requires_grad and x.device.type == "cpu"


@pytest.mark.parametrize(
    "draw, n, batch_size, message",
    [
        (points, 0, 4, "n must be a positive integer, got 0"),
        (points, 4, 0, "batch_size must be a positive integer, got 0"),
        (lambda rows, generator: torch.zeros(3, 2), 4, 4, r"returned torch.float32 \(3, 2\) for the 4 samples of batch 0"),
        (lambda rows, generator: torch.zeros(len(rows), 1 + int(rows[0])), 4, 2, r"returned torch.float32 \(2, 3\) for the 2 samples of batch 1"),
        (lambda rows, generator: torch.zeros(len(rows), dtype=torch.float64 if rows[0] else torch.float32), 4, 2, r"torch.float64 \(2,\) for the 2 samples of batch 1"),
        (lambda rows, generator: torch.zeros(len(rows), dtype=torch.complex64), 4, 2, "returned torch.complex64; convert"),
        (points, 4, 2.0, "batch_size must be a positive integer, got 2.0"),
    ],
)
def test_what_cannot_be_meant_is_an_error(draw, n, batch_size, message):
    with pytest.raises(ValueError, match=message):
        spread(draw, n, batch_size, seeded())


def test_without_accelerate_the_error_names_the_extra(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"diffusion-core\[train\]"):
        spread(points, 4)


def test_it_is_the_sampler_for_one_batch():
    schedule = LinearVP()
    denoise = ring().denoiser(schedule)
    kept = []

    def draw(rows, generator):
        kept.append(schedule.noise((len(rows), 2), generator))
        return last(ddim(denoise, schedule, kept[-1], uniform(10)))

    x = spread(draw, 20, 64, seeded())
    assert torch.equal(x, last(ddim(denoise, schedule, kept[0], uniform(10))))
