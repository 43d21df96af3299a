"""The group of processes: who leaves it at the end and who does not, and where a restarted run meets. Real launchers are in `test_processes.py`."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch.distributed import HashStore, TCPStore, is_initialized

from diffusion_core import group
from diffusion_core.training.command import main

RESTARTED = {"TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}


@pytest.fixture
def alone_in_a_group():
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    group.leave()


@pytest.fixture
def launchers_store(monkeypatch):
    """As torchrun hosts it, with what it tells its processes about it."""
    store = TCPStore("localhost", 0, 2, True, wait_for_workers=False)
    for name, value in {**RESTARTED, "MASTER_PORT": str(store.port)}.items():
        monkeypatch.setenv(name, value)
    return store


def test_one_process_has_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert group.enter("this") is None and not is_initialized()
    group.leave()


def test_the_group_is_left_at_the_end_unless_an_error_ends_the_process(alone_in_a_group, monkeypatch):
    monkeypatch.setattr(sys, "last_value", ValueError("unhandled"), raising=False)
    group.leave_at_the_end()
    assert is_initialized()
    monkeypatch.delattr(sys, "last_value")
    group.leave_at_the_end()
    assert not is_initialized()


SCRIPT = textwrap.dedent("""
    import atexit, sys
    import accelerate
    from diffusion_core import group

    atexit.register(lambda: print("end"))
    accelerate.PartialState = lambda **given: None
    group.leave = lambda: print("left")
    group.enter("this")
""")


@pytest.mark.parametrize("last_line, left", [("", True), ("raise ValueError('no')", False), ("group.stay()", False), ("sys.exit(3)", True)])
def test_what_an_interpreter_does_at_its_end(last_line, left):
    """What is registered first runs last."""
    env = {**os.environ, "WORLD_SIZE": "2", "DIFFUSION_CORE_DEVICE": "cpu"}
    done = subprocess.run([sys.executable, "-c", SCRIPT + last_line], capture_output=True, text=True, timeout=120, env=env)
    assert done.stdout.split() == ["left", "end"][not left :], done.stderr


def test_the_command_leaves_when_it_is_done_and_stays_when_it_fails(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(group, "leave", lambda: said.append("leave"))
    monkeypatch.setattr(group, "stay", lambda: said.append("stay"))
    line = ["moons", "--output", str(tmp_path), "--network", "MLP(width=8)", "--batch", "4", "--quiet", "--steps"]
    assert (main([*line, "0"]), main([*line, "1"])) == (2, 0) and said == ["stay", "leave"]


def test_what_the_dead_left_in_the_launchers_store_is_not_read_after_a_restart(launchers_store):
    launchers_store.set("address", "of the dead")
    place = group.meeting_place()
    assert (place["rank"], place["world_size"]) == (1, 2)
    assert not place["store"].check(["address"])
    place["store"].set("address", "of the living")
    assert group.meeting_place()["store"].get("address") == b"of the living", "the others of this restart meet there"
    assert launchers_store.get("address") == b"of the dead"


def test_each_restart_meets_elsewhere(launchers_store, monkeypatch):
    group.meeting_place()["store"].set("address", "of the second")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")
    assert not group.meeting_place()["store"].check(["address"])


@pytest.mark.parametrize("name, value", [("TORCHELASTIC_RESTART_COUNT", "0"), ("TORCHELASTIC_RESTART_COUNT", None), ("TORCHELASTIC_USE_AGENT_STORE", "False"), ("GROUP_WORLD_SIZE", "2"), ("GROUP_WORLD_SIZE", None)])
def test_otherwise_torchs_own_place_is_right(name, value, launchers_store, monkeypatch):
    """A first start; a store made anew at every restart; several machines, which count their restarts apart."""
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    assert group.meeting_place() == {}
