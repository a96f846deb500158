"""Which loop of torch's DataLoader a call comes from. It is known without importing torch.

A ``DataLoader(sequence, batch_size=None)`` makes an iterator for each pass, which asks for ``sequence[i]`` in the order
of a sampler. Nothing that it passes to a sequence tells one iterator from another, but it is among the callers. So two
loaders in turns, a pass that is broken off and one in any order are each a pass.

With ``num_workers``, copies of the sequence in other processes are asked. They are made anew for each pass and asked
for some of the batches each, so they cannot know which epoch it is.

Read in torch 2.13.
"""

from __future__ import annotations

import sys
import weakref
from types import FrameType

from h5split.order.passes import Loop
from h5split.system.callers import caller_in

_LOADER = "torch.utils.data.dataloader"
_WORKER = "torch.utils.data._utils.worker"
_PLAIN_SAMPLERS = ("torch.utils.data.sampler", _LOADER)  # where samplers are that do not know of ranks
_DISTRIBUTED = "torch.distributed"
_ASKS = "_next_data"  # the method of an iterator that asks for items
_MAP = 0  # torch's kind of a data set that is asked for items; any other asks for them itself

WORKER = Loop(None, None)  # the only loop in a worker process


def rank_and_world(frame: FrameType | None) -> tuple[int, int] | None:
    """The rank of this process and the number of ranks, if torch trains with several; else None.

    None also if a DataLoader asks with a sampler that is not one of torch's plain ones: a DistributedSampler, for
    instance, gives each rank other batches.

    Args:
        frame: Of the caller.
    """
    distributed = sys.modules.get(_DISTRIBUTED)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    caller = caller_in(vars(sys.modules[_LOADER]), frame) if _LOADER in sys.modules else None
    sampler = None if caller is None else getattr(caller.f_locals.get("self"), "_index_sampler", None)
    if sampler is not None and type(sampler).__module__ not in _PLAIN_SAMPLERS:
        return None
    found = int(distributed.get_rank()), int(distributed.get_world_size())
    return found if found[1] > 1 else None


def loop_of(frame: FrameType | None) -> Loop | None:
    """The loop of torch that asks for an item, or WORKER; None of an item that is asked for by somebody else.

    Args:
        frame: Of the caller.
    """
    if _LOADER not in sys.modules:
        return None
    caller = caller_in(vars(sys.modules[_LOADER]), frame)
    if caller is not None and caller.f_code.co_name == _ASKS:  # else it started a process, in which this is
        iterator = caller.f_locals.get("self")
        return Loop(None, weakref.ref(iterator)) if getattr(iterator, "_dataset_kind", None) == _MAP else None
    caller = caller_in(vars(sys.modules[_WORKER]), frame)
    return WORKER if caller is not None and caller.f_locals.get("dataset_kind") == _MAP else None
