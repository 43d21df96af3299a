"""The commands and scripts of the page "When one machine is not enough" run as they stand, but for sizes, two processes instead of eight, and the CPU."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from book_rules import text_of
from safetensors.torch import load_file

from diffusion_core import load_run

PAGE = Path(__file__).resolve().parent.parent / "book" / "package" / "scale.ipynb"
TEXT = text_of(nbformat.read(PAGE, as_version=4))
COMMANDS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
SCRIPTS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL))
JOB = next(text for text in COMMANDS if text.startswith("#!"))
PLAIN = [text for text in COMMANDS if text.startswith(("python", "torchrun --standalone", "accelerate")) and not text.endswith(".py\n")]
LAUNCHED_SCRIPTS = [text for text in COMMANDS if text.endswith(".py\n")]
TWO_MACHINES = [text for text in COMMANDS if "node0" in text]
SMALL = {"images": "--steps 2 --batch 8 --network 'UNet(width=8, mult=(1,), patch=4)' --sampling-steps 2", "points": "--steps 2 --batch 8 --network 'MLP(width=8)' --sampling-steps 2"}


def small(command: str) -> str:
    """The same command on two processes and data that are at hand, with the sizes that stand last, which are those that count."""
    command = re.sub(r"(--nproc_per_node|--num_processes)=\d+", r"\1=2", command.replace("\\\n", " ")).strip()
    if "diffusion_core.training" not in command:
        return command
    return f"{command.replace('training cifar10', 'training digits')} {SMALL['points' if ' moons ' in command else 'images']}"


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "DIFFUSION_CORE_DEVICE": "cpu", **more}


def run(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess:
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def output_of(command: str) -> str:
    words = shlex.split(command)
    return words[words.index("--output") + 1] if "--output" in words else f"runs/{words[words.index('diffusion_core.training') + 1]}"


def test_every_command_of_the_page_is_run_by_one_of_these_tests():
    assert sorted(COMMANDS) == sorted([*PLAIN, *LAUNCHED_SCRIPTS, *TWO_MACHINES, JOB]) and len(COMMANDS) == 12
    assert sorted(SCRIPTS) == sorted(shlex.split(text)[-1] for text in LAUNCHED_SCRIPTS)


@pytest.mark.parametrize("command", PLAIN)
def test_a_command_trains_what_load_run_loads(command, tmp_path):
    command = small(command)
    done = run(command, tmp_path)
    processes = "2 processes" if re.search("nproc_per_node|num_processes", command) else "1 process"
    assert f"on cpu, {processes}," in done.stdout
    denoiser = load_run(tmp_path / output_of(command))
    assert not denoiser.training and (tmp_path / output_of(command) / "samples.png").exists() is ("--samples" in command)


@pytest.mark.parametrize("command", TWO_MACHINES)
def test_two_launchers_meet_as_two_machines_do(command, tmp_path, free_port):
    """One process each, at one address of this machine. accelerate counts the processes of both machines."""
    command = small(command).replace("node0", "localhost").replace("29400", free_port).replace("29500", free_port).replace("--nproc_per_node=2", "--nproc_per_node=1")
    command = re.sub(r"^#[^\n]*\n", "", command)
    commands = [command.replace("--machine_rank=0", f"--machine_rank={machine}") for machine in (0, 1)]
    machines = [subprocess.Popen(["bash", "-ec", text], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for text in commands]
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert sum("computes  on cpu, 2 processes" in text for text in said) == 1
    load_run(tmp_path / output_of(command))


@pytest.fixture
def free_port() -> str:
    import socket

    with socket.socket() as found:
        found.bind(("localhost", 0))
        return str(found.getsockname()[1])


def test_the_job_script_with_stand_ins_for_slurm(tmp_path, free_port):
    """srun runs what it is given, scontrol names this machine; run twice, as a requeued job is."""
    for name, does in {"srun": 'exec "$@"', "scontrol": "echo localhost; echo other"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(small(JOB.replace("--nnodes=2", "--nnodes=1").replace("29400", free_port)))
    slurm = {"PATH": f"{tmp_path}{os.pathsep}{environment()['PATH']}", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node[0-1]"}
    assert "2 processes" in run("bash job.sh", tmp_path, **slurm).stdout
    assert "from step 2 of 2" in run("bash job.sh", tmp_path, **slurm).stdout


def test_the_scripts_of_the_page(tmp_path):
    """sample.py on the digits that the command trained, by two processes and by one; train.py with fewer steps."""
    train, sample = (next(text for text in LAUNCHED_SCRIPTS if name in text) for name in ("train.py", "sample.py"))
    (tmp_path / "train.py").write_text(SCRIPTS["train.py"].replace("steps=6000", "steps=2"))
    run(small(train), tmp_path)
    assert [path.name for path in (tmp_path / "runs" / "mine").iterdir()] == ["checkpoint.safetensors"]

    run(small("python -m diffusion_core.training digits --quiet"), tmp_path)
    (tmp_path / "sample.py").write_text(SCRIPTS["sample.py"].replace("(schedule, 50)", "(schedule, 2)").replace("1000", "30").replace("125", "8"))
    run(small(sample), tmp_path)
    by_two = load_file(tmp_path / "samples.safetensors")["x"]
    run("python sample.py", tmp_path)
    assert by_two.shape == (30, 1, 28, 28) and (load_file(tmp_path / "samples.safetensors")["x"] == by_two).all()
