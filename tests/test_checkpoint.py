"""Checkpoints of fit: a run that is killed, interrupted or stopped goes on to the same end, and nothing else is ever continued."""

import copy
import errno
import hashlib
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from diffusion_core import DDPM, MLP, Denoiser, Learned, LinearVP, LossSecondMoment, MonotoneLogSNR, UNet, fit, linear_betas, losses, targets
from diffusion_core.training import Diverged, checkpoint, load
from diffusion_core.training.checkpoint import NAME, parse
from diffusion_core.training.identity import described

HERE = Path(__file__).parent
IMAGES = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
LABELS = {"label": torch.arange(24) % 3}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 100, seed: int = 5) -> torch.Tensor:
    return torch.randn(n, 2, generator=seeded(seed))


def mlp(width: int = 8, schedule=None, target=targets.v) -> Denoiser:
    return Denoiser(MLP(2, width=width), schedule or LinearVP(), target)


class Killed(Exception):
    """Stands in for a signal: what was in memory is lost."""


def stop_at_call(denoiser: Denoiser, call: int, what=Killed) -> Denoiser:
    """The denoiser, whose network does `what` (or raises it) when it is called for the `call`-th time, from 0."""
    calls = iter(range(10**6))

    def count(module, inputs):
        if next(calls) == call:
            if isinstance(what, type):
                raise what
            what()

    denoiser.net.register_forward_pre_hook(count)
    return denoiser


def tensors(denoiser: Denoiser) -> list[torch.Tensor]:
    return [value.clone() for value in (*denoiser.parameters(), *denoiser.buffers())]


def same(one: Denoiser, other: Denoiser) -> bool:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def step_in(folder: Path) -> int:
    return parse(folder / NAME, (folder / NAME).read_bytes())[0]["step"]


class Restless(nn.Module):
    """A network with all that a state can hold: dropout, a buffer that moves, one that no state_dict shows, a weight without gradient, a tied one."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.outer = nn.Linear(2, 2)
        self.outer.weight = self.inner.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x, c):
        self.calls += 1
        return self.outer(nn.functional.dropout(self.norm(self.inner(x)), 0.5, self.training)) * self.frozen + 1e-3 * self.calls


def restless_learned() -> Denoiser:
    return Denoiser(MLP(2, width=8).double(), Learned(MonotoneLogSNR(generator=seeded(1))), targets.v)


RUNS = {
    "plain": (mlp, points(), {}),
    "adaptive times": (mlp, points(), {"times": lambda: LossSecondMoment(3, history=2)}),
    "dropped labels": (lambda: Denoiser(UNet(width=8, num_classes=3), LinearVP(), targets.v), (IMAGES, LABELS), {"label_dropout": 0.3}),
    "bfloat16": (lambda: Denoiser(UNet(width=8), LinearVP(), targets.eps), IMAGES, {"precision": "bf16"}),
    "learned variance": (
        lambda: Denoiser(UNet(width=8, learned_variance=True), DDPM(linear_betas(30)), targets.eps),
        IMAGES,
        {"loss": losses.hybrid_loss(30, levels=None), "times": lambda: LossSecondMoment(30)},
    ),
    "a learned path in float64": (restless_learned, points().double(), {}),
    "dropout and buffers": (lambda: Denoiser(Restless(), LinearVP(), targets.v), points(), {}),
}


def run(name: str, folder: Path | None, generator=None, kill_at: int | None = None, start: int = 0, **more):
    """(denoiser, average, losses, times) of one of RUNS, of 10 steps; `start` seeds the network's own weights."""
    build, data, settings = RUNS[name]
    settings = {key: value() if key == "times" else value for key, value in settings.items()}
    torch.manual_seed(start)
    denoiser = build()
    if kill_at is not None:
        stop_at_call(denoiser, kill_at)
    saved = {} if folder is None else {"checkpoint": folder, "checkpoint_every": 3}
    average, history = fit(denoiser, data, 10, batch_size=8, generator=generator or seeded(3), **{**saved, **settings, **more})
    return denoiser, average, history, settings.get("times")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_stopped_goes_on_to_the_same_end_bit_for_bit(name, tmp_path):
    kept, whole_generator = seeded(3), seeded(3)
    whole = run(name, None, whole_generator)
    for start, call in enumerate((5, 3)):  # the second attempt goes on at step 3 and dies at step 6, before it is written
        with pytest.raises(Killed):
            run(name, tmp_path, kill_at=call, start=start)
    assert step_in(tmp_path) == 6
    resumed = run(name, tmp_path, kept, start=7)
    assert step_in(tmp_path) == 10
    assert same(whole[0], resumed[0]) and same(whole[1], resumed[1])
    assert torch.equal(whole[2], resumed[2]) and len(whole[2]) == 10
    assert torch.equal(torch.rand(3, generator=whole_generator), torch.rand(3, generator=kept))
    if whole[3] is not None:
        assert all(torch.equal(a, b) for a, b in zip(whole[3].state_dict().values(), resumed[3].state_dict().values(), strict=True))


def test_numbers_of_numpy_are_numbers(tmp_path):
    """Settings often come from arrays; they are written, and equal to Python's."""
    counts = {"steps": np.int64(3), "batch_size": np.int32(8), "warmup": np.uint8(1), "checkpoint_every": np.int64(2)}
    fit(mlp(), points(), **counts, lr=np.float32(0.5), generator=seeded(), checkpoint=tmp_path)
    fit(stop_at_call(mlp(), 0), points(), 3, batch_size=8, warmup=1, lr=0.5, generator=seeded(), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="batch_size is 8 there and 4 here"):
        fit(mlp(), points(), **counts | {"batch_size": np.int64(4)}, lr=0.5, generator=seeded(), checkpoint=tmp_path)


def test_checkpoints_change_nothing_of_a_run(tmp_path):
    one, other = run("plain", None), run("plain", tmp_path)
    assert same(one[0], other[0]) and same(one[1], other[1]) and torch.equal(one[2], other[2])


def test_the_file_is_on_the_disk_before_it_gets_its_name_and_then_the_name_is(tmp_path, monkeypatch):
    """What survives a power cut, which no test can make: the order of the calls is all there is to see."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def kind(handle):
        return "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"

    monkeypatch.setattr(checkpoint.os, "fsync", lambda handle: (calls.append("flush " + kind(handle)), fsync(handle)))
    monkeypatch.setattr(checkpoint.os, "replace", lambda half, file: (calls.append(f"{half.name} becomes {file.name}"), replace(half, file)))
    checkpoint.write(tmp_path / NAME, {}, {"x": torch.ones(2)})
    half = f"{NAME}.{os.getpid()}.tmp"
    assert calls == ["flush file", f"{half} becomes {NAME}", "flush folder"]


def test_a_finished_run_is_handed_back_without_a_step(tmp_path):
    first = run("adaptive times", tmp_path)
    stamp = (tmp_path / NAME).stat().st_mtime_ns
    again = run("adaptive times", tmp_path, kill_at=0, start=5)
    assert same(first[0], again[0]) and same(first[1], again[1]) and torch.equal(first[2], again[2])
    assert torch.equal(first[3].probabilities, again[3].probabilities)
    assert not again[1].training and not any(p.requires_grad for p in again[1].parameters())
    assert (tmp_path / NAME).stat().st_mtime_ns == stamp


def test_without_a_generator_the_seed_of_the_checkpoint_counts(tmp_path):
    torch.manual_seed(1)
    with pytest.raises(Killed):
        fit(stop_at_call(mlp(), 7), points(), 10, batch_size=8, checkpoint=tmp_path)
    seed = parse(tmp_path / NAME, (tmp_path / NAME).read_bytes())[0]["seed"]
    torch.manual_seed(2)
    resumed, history = fit(mlp(), points(), 10, batch_size=8, checkpoint=tmp_path)
    torch.manual_seed(1)
    whole, want = fit(mlp(), points(), 10, batch_size=8)
    assert same(resumed, whole) and torch.equal(history, want)
    torch.manual_seed(1)
    mlp()
    assert seed == int(torch.randint(2**62, (1,)))


@pytest.mark.parametrize("every, want", [(4, [0, 4, 8, 10]), (5, [0, 5, 10]), (100, [0, 10]), (None, list(range(11)))])
def test_when_a_checkpoint_is_written(every, want, tmp_path, monkeypatch):
    seen = []
    real = checkpoint.write
    monkeypatch.setattr("diffusion_core.training.resume.write", lambda file, record, held: (seen.append(record["step"]), real(file, record, held)))
    fit(mlp(), points(), 10, batch_size=8, checkpoint=tmp_path, checkpoint_every=every)
    assert seen == want
    seen.clear()
    fit(mlp(), points(), 60, batch_size=8, checkpoint=tmp_path / "longer")
    assert seen == list(range(0, 61, 3))


class TestKilled:
    """By SIGKILL, twenty times a run; `killed_runs.py` says how."""

    @staticmethod
    def of(kind: str, folder: Path) -> dict:
        done = subprocess.run([sys.executable, HERE / "killed_runs.py", folder, kind], capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def test_at_every_stage_of_a_step_and_of_writing(self, tmp_path):
        report = self.of("events", tmp_path)
        assert len(report["kills"]) == 20 and len({(kill["run"], kill["step"], kill["moment"]) for kill in report["kills"]}) == 20
        assert sum(kill["half"] for kill in report["kills"]) >= 8  # half written ones and complete ones that had not got their name yet
        assert sum(kill["half"] for kill in report["kills"] if "not flushed" in kill["moment"]) == 4
        assert {kill["step"] // 30 for kill in report["kills"]} == {0, 1, 2, 3, 4}  # in every fifth of the run's 150 steps
        assert report["ends"] and all(end == {"equal": True, "left": [NAME, "end.json"]} for end in report["ends"])

    def test_at_any_time(self, tmp_path):
        report = self.of("clock", tmp_path)
        assert len(report["kills"]) == 20
        assert {kill["step"] // 15 for kill in report["kills"]} >= {0, 1, 2, 3}  # in every quarter of the run's 60 steps
        assert report["ends"] and all(end == {"equal": True, "left": [NAME, "end.json"]} for end in report["ends"])


class TestInterrupted:
    @pytest.fixture(autouse=True)
    def python_listens(self):
        """Also where the tests run in the background of a shell, which lets Ctrl-C pass by."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_ctrl_c_ends_the_step_and_writes(self, tmp_path):
        def press():
            os.kill(os.getpid(), signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        torch.manual_seed(0)
        with pytest.raises(KeyboardInterrupt, match="after step 5 of 10"):
            fit(stop_at_call(mlp(), 4, press), points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path, checkpoint_every=10)
        assert signal.getsignal(signal.SIGINT) is before and step_in(tmp_path) == 5
        resumed, history = fit(mlp(), points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path, checkpoint_every=10)
        whole = run("plain", None)
        assert same(resumed, whole[1]) and torch.equal(history, whole[2])

    def test_a_second_one_does_not_wait(self, tmp_path):
        def press_twice():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt) as caught:
            fit(stop_at_call(mlp(), 4, press_twice), points(), 10, batch_size=8, checkpoint=tmp_path, checkpoint_every=3)
        assert "after step" not in str(caught.value) and step_in(tmp_path) == 3

    def test_one_during_the_last_writing_is_not_lost(self, tmp_path, monkeypatch):
        def write(file, record, held):
            if record["step"] == 10:
                os.kill(os.getpid(), signal.SIGINT)
            checkpoint.write(file, record, held)

        monkeypatch.setattr("diffusion_core.training.resume.write", write)
        torch.manual_seed(0)
        with pytest.raises(KeyboardInterrupt):
            fit(mlp(), points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path)
        assert step_in(tmp_path) == 10 and same(load(tmp_path, mlp()), run("plain", None)[1])

    def test_without_a_checkpoint_it_raises_at_once(self):
        denoiser = stop_at_call(mlp(), 4, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt) as caught:
            fit(denoiser, points(), 10, batch_size=8)
        assert "after step" not in str(caught.value)


def test_a_diverged_run_leaves_its_last_checkpoint(tmp_path):
    def poison(module, inputs, output):
        return output * float("nan") if next(calls) == 7 else output

    calls = iter(range(100))
    torch.manual_seed(0)
    denoiser = mlp()
    denoiser.net.register_forward_hook(poison)
    with pytest.raises(Diverged) as caught:
        fit(denoiser, points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path, checkpoint_every=3)
    assert caught.value.step == 7 and step_in(tmp_path) == 6
    assert all(value.isfinite().all() for value in tensors(load(tmp_path, mlp())))
    resumed, _ = fit(mlp(), points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path)
    assert same(resumed, run("plain", None)[1])


def half_frozen(denoiser: Denoiser) -> Denoiser:
    next(denoiser.parameters()).requires_grad_(False)
    return denoiser


CALL = {"data": points(), "steps": 10, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the checkpoint of CALL."""
    place = tmp_path_factory.mktemp("run")
    fit(mlp(), **CALL, generator=seeded(3), checkpoint=place)
    return place


class TestAnotherRun:
    """Each is refused by what differs, and neither the file nor the denoiser is touched."""

    OTHER = {
        "steps": (dict(steps=11), "steps is 10 there and 11 here"),
        "batch": (dict(batch_size=4), "batch_size is 8 there and 4 here"),
        "rate": (dict(lr=1e-3), "lr is 0.002 there and 0.001 here"),
        "warmup": (dict(warmup=3), "warmup is 0 there and 3 here"),
        "average": (dict(ema=0.5), "ema is 0.999 there and 0.5 here"),
        "clip": (dict(clip=2.0), "clip is 1.0 there and 2.0 here"),
        "precision": (dict(precision="bf16"), "precision is fp32 there and bf16 here"),
        "weight": (dict(weight=losses.min_snr(5.0)), r"weight is None there and min_snr\.<locals>\.weight\(.*gamma=5\.0\) here"),
        "times": (dict(times=losses.lognormal_times()), "times is uniform_times.* there and lognormal_times.*mean=-1.2"),
        "adaptive": (dict(times=LossSecondMoment(10)), r"times is .* LossSecondMoment\(floor=0.001, history=10, steps=10\) here"),
        "loss": (dict(loss=lambda *args, **cond: losses.denoising_loss(*args, **cond)), "loss is denoising_loss.* there and .*lambda.* code"),
        "data": (dict(data=points(seed=6)), "data x0 is float32 .100, 2. .* there"),
        "more data": (dict(data=points(101)), r"data x0 is float32 \(100, 2\) .* and float32 \(101, 2\)"),
        "seed": (dict(generator=seeded(4)), "the generator's seed is another"),
        "network": (dict(denoiser=partial(mlp, width=16)), r"network is .*out_features=8.* there and .*out_features=16.* here"),
        "schedule": (dict(denoiser=partial(mlp, schedule=LinearVP(0.1, 19.0))), r"schedule is LinearVP\(beta_max=20.0, .* there and LinearVP\(beta_max=19.0, .* here"),
        "target": (dict(denoiser=partial(mlp, target=targets.eps)), r"target is v\(\) there and eps\(\) here"),
        "sigma_data": (dict(denoiser=lambda: Denoiser(MLP(2, width=8), LinearVP(), targets.v, 0.5)), "sigma_data is 1.0 there and 0.5 here"),
        "frozen": (dict(denoiser=lambda: half_frozen(mlp())), r"frozen is nothing there and net\.\S* here"),
        "dtype": (dict(denoiser=lambda: mlp().double(), data=points().double()), "data x0 is float32"),
    }

    @pytest.mark.parametrize("name", OTHER)
    def test_is_refused(self, name, folder):
        settings, message = self.OTHER[name]
        settings = {"generator": seeded(3), **CALL, **settings}
        denoiser = settings.pop("denoiser", mlp)()
        content, weights = (folder / NAME).read_bytes(), copy.deepcopy(denoiser)
        with pytest.raises(ValueError, match=message) as caught:
            fit(denoiser, **settings, checkpoint=folder)
        assert str(folder / NAME) in str(caught.value) and "belongs to another run" in str(caught.value) and "name another folder" in str(caught.value)
        assert (folder / NAME).read_bytes() == content and same(denoiser, weights)
        named = str(caught.value).split("run: ")[1].split(" there")[0].split("; ")
        assert len(named) == 1, "only what differs is named"

    def test_labels_are_part_of_it(self, tmp_path):
        build, data, settings = RUNS["dropped labels"]
        run("dropped labels", tmp_path)
        other = data[0], {"label": (data[1]["label"] + 1) % 3}
        with pytest.raises(ValueError, match="data label is int64"):
            fit(build(), other, 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path, **settings)

    def test_weights_that_print_alike_and_are_not(self, tmp_path):
        class Net(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.w = nn.Parameter(torch.ones(width))

            def forward(self, x, c):
                return x * self.w.mean()

        fit(Denoiser(Net(2), LinearVP(), targets.v), points(), 2, checkpoint=tmp_path, generator=seeded())
        other = Denoiser(Net(3), LinearVP(), targets.v)
        with pytest.raises(ValueError, match=r"net.w is float32 \(2,\) there and float32 \(3,\) here"):
            fit(other, points(), 2, checkpoint=tmp_path, generator=seeded())
        assert torch.equal(other.net.w, torch.ones(3))

    def test_heads_that_neither_print_nor_shape_a_weight(self, tmp_path):
        """Four heads and one have the same weights and compute something else."""

        def unet(heads: int) -> Denoiser:
            return Denoiser(UNet(width=8, heads=heads), LinearVP(), targets.v)

        fit(unet(4), IMAGES, 2, batch_size=4, checkpoint=tmp_path, generator=seeded())
        said = "network is attention.heads = 4 there and attention.heads = 1 here"
        with pytest.raises(ValueError, match=said):
            load(tmp_path, unet(1))
        with pytest.raises(ValueError, match=said):
            fit(unet(1), IMAGES, 2, batch_size=4, checkpoint=tmp_path, generator=seeded())
        load(tmp_path, unet(4))

    def test_one_that_made_no_step_stands_in_nobodys_way(self, tmp_path):
        """A first step that fails, of a loss that is then mended."""
        with pytest.raises(ZeroDivisionError):
            fit(mlp(), points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path, loss=lambda *args, **cond: 1 / 0)
        assert step_in(tmp_path) == 0
        torch.manual_seed(0)
        average, history = fit(mlp(), points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path)
        want = run("plain", None)
        assert step_in(tmp_path) == 10 and same(average, want[1]) and torch.equal(history, want[2])

    @pytest.mark.parametrize("begun", [True, False])
    def test_two_at_the_same_time(self, begun, tmp_path):
        """The second begins while the first trains, from its checkpoint or from none: the first to see the other's stops, and overwrites nothing."""
        ours = {"batch_size": 8, "generator": seeded(3), "checkpoint": tmp_path, "checkpoint_every": 2}

        def second():
            if not begun:
                (tmp_path / NAME).unlink()
            fit(mlp(), points(), 10, **ours | {"generator": seeded(3)})

        with pytest.raises(FileExistsError, match="another run works in this folder") as caught:
            fit(stop_at_call(mlp(), 3, second), points(), 10, **ours)
        assert caught.value.filename == str(tmp_path / NAME) and step_in(tmp_path) == 10
        assert [path.name for path in tmp_path.iterdir()] == [NAME]

    def test_a_checkpoint_that_was_moved_away_meanwhile_is_written_anew(self, tmp_path):
        fit(stop_at_call(mlp(), 3, (tmp_path / NAME).unlink), points(), 10, batch_size=8, checkpoint=tmp_path, checkpoint_every=2)
        assert step_in(tmp_path) == 10

    def test_another_format(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checkpoint, "FORMAT", 2)
        fit(mlp(), points(), 2, checkpoint=tmp_path)
        monkeypatch.undo()
        with pytest.raises(ValueError, match="has format 2 and this version of diffusion_core reads format 1"):
            fit(mlp(), points(), 2, checkpoint=tmp_path)

    def test_a_path_may_differ_by_rounding(self, tmp_path, monkeypatch):
        """As it does between machines; by more than that, it is another path, though it is described alike."""
        fit(mlp(), points(), 2, checkpoint=tmp_path)
        real = LinearVP._alpha
        monkeypatch.setattr(LinearVP, "_alpha", lambda self, t: real(self, t) * (1 + 1e-14))
        fit(mlp(), points(), 2, checkpoint=tmp_path)
        monkeypatch.setattr(LinearVP, "_alpha", lambda self, t: real(self, t) * (1 - 1e-6))
        with pytest.raises(ValueError, match="the schedule's alpha and sigma are not the same"):
            fit(mlp(), points(), 2, checkpoint=tmp_path)


class TestDescribed:
    def test_functions_are_known_by_their_code_and_what_they_hold(self):
        def made(constant, text="a"):
            return lambda x, y=2: constant * x + y

        assert described(made(1.0)) == described(made(1.0)) != described(made(2.0))
        assert described(lambda x: x + 1) != described(lambda x: x - 1)
        assert described(lambda x: x + 1) != described(lambda x: x + 2)
        assert described(partial(made, 1)) != described(partial(made, 2))
        assert described(made(torch.ones(2))) != described(made(torch.zeros(2)))
        assert described(LossSecondMoment(3).weights) != described(LossSecondMoment(4).weights)
        assert described(targets.edm(0.5)) != described(targets.edm(0.6))
        assert described(torch.sin) != described(torch.cos)
        nowhere = {}
        exec("f = lambda x: x", nowhere | {"__name__": None}, nowhere)
        assert "lambda" in described(nowhere["f"])

    def test_the_same_in_another_process_and_after_a_diary_was_written(self, tmp_path):
        script = tmp_path / "say.py"
        script.write_text(
            "from diffusion_core.training.identity import described\n"
            "def outer(a, diary):\n    def inner(x):\n        diary.append(x)\n        return x in {'p', 'q', 'r', 's'} and (lambda y: y + a)\n    return inner\n"
            "diary = []\nf = outer(1.5, diary)\nbefore = described(f)\nf('p')\nassert described(f) == before\nprint(before)\n"
        )
        said = {subprocess.run([sys.executable, script], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout for seed in "12"}
        assert len(said) == 1 and "a=1.5" in said.pop()

    def test_an_address_is_no_setting(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.act = lambda x: x

            def extra_repr(self):
                return f"act={self.act}, width=3"

        assert described(Net()) == described(Net()) and "width=3" in described(Net())

    def test_it_ends(self):
        class Knot:
            def __init__(self):
                self.me = self

        assert "Knot" in described(Knot())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a checkpoint."""
    place = tmp_path_factory.mktemp("good")
    fit(mlp(), points(), 2, checkpoint=place)
    return (place / NAME).read_bytes()


class TestDamaged:
    @staticmethod
    def refused(folder: Path, content: bytes, message: str) -> None:
        """By fit and by load, with the file's name, what is wrong and what to do; the file stays as it is."""
        (folder / NAME).write_bytes(content)
        for call in (lambda: fit(mlp(), points(), 2, checkpoint=folder), lambda: load(folder, mlp())):
            with pytest.raises(ValueError, match=message) as caught:
                call()
            assert str(folder / NAME) in str(caught.value) and "move it away" in str(caught.value)
        assert (folder / NAME).read_bytes() == content

    def test_the_good_one_is_read(self, good, tmp_path):
        (tmp_path / NAME).write_bytes(good)
        load(tmp_path, mlp())

    @pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 500, -1])
    def test_cut_short(self, good, keep, tmp_path):
        self.refused(tmp_path, good[:keep], "damaged")

    def test_made_longer(self, good, tmp_path):
        self.refused(tmp_path, good + b"\0", "is damaged: its .* bytes do not have the SHA-256")

    def test_any_one_bit(self, good, tmp_path):
        """All of the first 64 bytes, and 1,500 at random places of the header and the tensors."""
        chance = torch.randint(8 * len(good), (1500,), generator=seeded()).tolist()
        header = torch.randint(8 * 4000, (500,), generator=seeded(1)).tolist()
        for bit in (*range(512), *header, *chance):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ValueError, match="checkpoint.safetensors"):
                parse(tmp_path / NAME, bytes(bad))
        self.refused(tmp_path, bytes(bad), "is damaged")

    @pytest.mark.parametrize(
        "content",
        [
            safetensors.torch.save({"weights.net.w": torch.ones(2)}),
            safetensors.torch.save({"w": torch.ones(2)}, {"format": "pt", "sha256": "0" * 64}),
            safetensors.torch.save({"w": torch.ones(2)}, {"diffusion_core": "no json", "sha256": "0" * 64}),
            json.dumps({"model": "another program", "step": 3}).encode(),
            b"[]",
            b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",  # {"a": 1}, pickled
            b"PK\x03\x04" + bytes(200),  # the zip that torch writes
            bytes(range(256)) * 4,
        ],
    )
    def test_foreign(self, content, tmp_path):
        self.refused(tmp_path, content, "is no checkpoint of diffusion_core")

    def test_a_seal_that_was_forged_for_other_tensors(self, good, tmp_path):
        with pytest.raises(ValueError, match="is damaged"):
            parse(tmp_path / NAME, good.replace(b'"step', b'"Step', 1) if b'"step' in good else good.replace(b"seed", b"Seed", 1))


class TestTheDiskRefuses:
    def test_a_full_disk_leaves_the_checkpoint_before(self, tmp_path):
        """A limit on the size of files stands for the disk: the system cuts the write short, as it does on a full one."""
        torch.manual_seed(0)
        denoiser = mlp()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        stop_at_call(denoiser, 4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard)))
        try:
            with pytest.raises(OSError, match="the one before, if any, still stands") as caught:
                fit(denoiser, points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path, checkpoint_every=3)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.filename == str(tmp_path / NAME) and caught.value.strerror.startswith("File too large")
        assert [path.name for path in tmp_path.iterdir()] == [NAME] and step_in(tmp_path) == 3
        resumed, history = fit(mlp(), points(), 10, batch_size=8, generator=seeded(3), checkpoint=tmp_path)
        assert same(resumed, run("plain", None)[1])

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_no_permission_is_told_as_such(self, call, tmp_path, monkeypatch):
        def refuse(*args):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(checkpoint.os, call, refuse)
        with pytest.raises(PermissionError, match=re.escape(str(tmp_path / NAME))):
            fit(mlp(), points(), 10, checkpoint=tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("number, refused", [(errno.EINVAL, False), (errno.EIO, True)])
    def test_a_folder_that_cannot_be_flushed(self, number, refused, tmp_path, monkeypatch):
        """Some network disks know no such thing; a disk that fails is another matter."""
        fsync = os.fsync

        def flush(handle):
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                raise OSError(number, "folder")
            fsync(handle)

        monkeypatch.setattr(checkpoint.os, "fsync", flush)
        if refused:
            with pytest.raises(OSError, match="folder"):
                checkpoint.write(tmp_path / NAME, {"step": 1}, {})
        else:
            checkpoint.write(tmp_path / NAME, {"step": 1}, {})
        assert step_in(tmp_path) == 1

    def test_it_is_found_before_the_first_step(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="is a file; name a folder"):
            fit(stop_at_call(mlp(), 0), points(), 10, checkpoint=tmp_path / "file")
        with pytest.raises(NotADirectoryError):
            fit(stop_at_call(mlp(), 0), points(), 10, checkpoint=tmp_path / "file" / "folder")

    def test_what_a_killed_run_left_is_cleared(self, tmp_path):
        left, mine = tmp_path / f"{NAME}.123.tmp", tmp_path / "notes.txt"
        left.write_bytes(b"half")
        mine.write_text("keep")
        fit(mlp(), points(), 2, checkpoint=tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "notes.txt"]


class TestLoad:
    def test_gives_the_average_frozen_or_the_raw_weights(self, tmp_path):
        denoiser, average, _, _ = run("plain", tmp_path)
        loaded = load(tmp_path, mlp())
        assert same(loaded, average) and not loaded.training and not any(p.requires_grad for p in loaded.parameters())
        raw = load(str(tmp_path / NAME), mlp(), average=False)
        assert same(raw, denoiser) and not same(raw, average) and not raw.training and all(p.requires_grad for p in raw.parameters())

    @pytest.mark.parametrize(
        "other, message",
        [
            (partial(mlp, width=16), "network is"),
            (partial(mlp, schedule=LinearVP(0.1, 19.0)), "schedule is"),
            (partial(mlp, target=targets.eps), "target is"),
            (lambda: mlp().double(), r"float32 .* there and float64 .* here"),
        ],
    )
    def test_refuses_another_denoiser(self, other, message, tmp_path):
        run("plain", tmp_path)
        denoiser = other()
        before = copy.deepcopy(denoiser)
        with pytest.raises(ValueError, match=f"holds another denoiser: .*{message}"):
            load(tmp_path, denoiser)
        assert same(denoiser, before)

    @pytest.mark.parametrize("place", ["nothing", "."])
    def test_says_where_it_looked(self, place, tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
            load(tmp_path / place, mlp())


class Extra(MLP):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


class Stubborn:
    def __call__(self, schedule, n, generator=None):
        return torch.full((n,), 0.5)

    def weights(self, t):
        return torch.ones(len(t))

    def update(self, t, losses):
        pass


@pytest.mark.parametrize(
    "denoiser, settings, message",
    [
        (mlp, {"checkpoint_every": 3}, "without a checkpoint"),
        (mlp, {"checkpoint_every": 0, "checkpoint": "x"}, "checkpoint_every=0"),
        (mlp, {"checkpoint_every": 2.5, "checkpoint": "x"}, "checkpoint_every=2.5"),
        (mlp, {"times": Stubborn(), "checkpoint": "x"}, "Stubborn adapts and cannot be resumed"),
        (lambda: Denoiser(Extra(2), LinearVP(), targets.v), {"checkpoint": "x"}, "something other than tensors"),
    ],
)
def test_what_cannot_be_resumed_is_refused_at_the_door(denoiser, settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        fit(denoiser(), points(), 2, **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_safetensors_that_other_programs_open(tmp_path):
    denoiser, average, history, _ = run("plain", tmp_path)
    held = safetensors.torch.load_file(tmp_path / NAME)
    assert torch.equal(held["weights.net." + next(iter(dict(denoiser.net.named_parameters())))], next(denoiser.net.parameters()))
    assert torch.equal(held["losses"].float(), history)
    raw = (tmp_path / NAME).read_bytes()
    record, _ = parse(tmp_path / NAME, raw)
    assert {"format", "seed", "step", "run"} == set(record) and record["run"]["steps"] == 10
    stated = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["sha256"]
    assert hashlib.sha256(raw.replace(stated.encode(), b"0" * 64)).hexdigest() == stated


def test_adaptive_times_take_only_a_state_of_their_own_settings():
    times = LossSecondMoment(3, history=2)
    times.update(torch.tensor([1 / 3, 1.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]))
    other = LossSecondMoment(3, history=2)
    other.load_state_dict(times.state_dict())
    for one in (times, other):
        one.update(torch.tensor([1 / 3, 2 / 3, 2 / 3, 1.0]), torch.tensor([4.0, 5.0, 6.0, 7.0]))
    want = torch.tensor([[1.0, 16.0], [25.0, 36.0], [49.0, 9.0]], dtype=torch.float64).mean(1).sqrt()
    want = 0.999 * want / want.sum() + 0.001 / 3
    assert torch.allclose(other.probabilities, want, rtol=1e-12) and torch.equal(other.probabilities, times.probabilities)
    with pytest.raises(ValueError, match=r"expected the state of LossSecondMoment\(4, history=2\)"):
        LossSecondMoment(4, history=2).load_state_dict(times.state_dict())


def test_nothing_unpickles():
    """No file of the package, its tests, its scripts and its notebooks reads or writes a format that can run code."""
    root = HERE.parent
    files = [path for folder in ("diffusion_core", "tests", "scripts", "benchmarks", "book") for kind in ("py", "ipynb") for path in (root / folder).rglob(f"*.{kind}")]
    unsafe = re.compile(r"torch\.(load|save)\(|(pickle|dill|joblib|cloudpickle)\.loads?\(|Unpickler\(|allow_pickle\s*=\s*True|read_pickle|(broadcast|gather)_object")
    found = [str(path.relative_to(root)) for path in files if path != Path(__file__) and any(unsafe.search(line) for line in path.read_text(encoding="utf-8").splitlines())]
    assert len(files) > 100 and found == []
