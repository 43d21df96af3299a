"""The processes that a launcher started, as a group: entered by whoever needs it first, left when the interpreter ends."""

import atexit
import os
import sys
import warnings
from typing import Any

import torch

from diffusion_core.devices import device
from diffusion_core.extras import needing


def enter(what: str) -> Any:
    """accelerate's state of the processes of `torchrun` or `accelerate launch`, or None where this is the only one. Raises ImportError, which names `what`, without accelerate."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    with needing(what, extra="train"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, which accelerate imports, misses ipywidgets
        from accelerate import PartialState
    cpu = device().type == "cpu"
    if torch.distributed.is_initialized():
        return PartialState(cpu=cpu)
    atexit.register(leave_at_the_end)
    return PartialState(cpu=cpu, **meeting_place())


def leave() -> None:
    """Dissolve the group, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def leave_at_the_end() -> None:
    """Dissolve the group before the interpreter goes: its threads, left alone, may abort the exit. A process that dies of an error goes at once, as `stay` says."""
    if not hasattr(sys, "last_value"):
        leave()


def stay() -> None:
    """Leave nothing at the end. For a process that fails: to dissolve the group may mean to wait for the others, while they wait for this one."""
    atexit.unregister(leave_at_the_end)


def meeting_place() -> dict[str, Any]:
    """Where the processes exchange their addresses, as arguments of `init_process_group`: none, for torch's own place, unless torchrun started them anew.

    torchrun keeps one store over its restarts, and the addresses of the dead processes in it. A process of the new ones that reads before the other has
    written finds the dead one's, is refused, and the run stops or hangs (torch 2.13; pytorch issues 135712 and 167288). Here the keys of a restart
    begin with its number, which the processes of one machine agree on; those of several do not, since only the machine of the dead process counts.
    """
    restart, shared = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if restart == "0" or not shared or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return {}
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, world_size = next(rendezvous("env://"))
    return {"store": PrefixStore(f"restart {restart}", store), "rank": rank, "world_size": world_size}
