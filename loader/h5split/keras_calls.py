"""Which loop of Keras a call comes from.

Keras has no word for a pass. `fit`, `evaluate` and `predict` make a data adapter, whose generator calls ``sequence[i]``
for each batch: one generator for each pass, several at a time where a callback evaluates, and on TensorFlow in any
thread. Nothing that Keras passes to a sequence tells one generator from another, but the stack does: the generator's
frame is among the callers, a few above, also where a subclass or another data set comes between.

Two more things are only seen there. A batch that `get_tf_dataset` asks for, or that is asked for before the adapter is
reset, is a look, to learn shapes. And `on_epoch_end` is called both when a pass is over and when an adapter is reset
before the first one.

All of this was read in Keras 3.8 to 3.15, and in 3.16, where a process of several asks for every n-th batch only. With
a Keras that works otherwise, items belong to one loop over ``sequence[i]``, which begins again when all were asked for.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any, NamedTuple

from keras.utils import PyDataset

from h5split.order.passes import Loop
from h5split.system.callers import caller_in

_ADAPTERS = vars(sys.modules[PyDataset.__module__])  # the globals of the module with Keras' data adapter
_LOOK = "get_tf_dataset"
_RESET = "reset"
_FIT, _EVALUATE = "fit", "evaluate"

LOOK = Loop(None, None)  # no loop: a batch is asked for because of its shape


def loop_of(frame: FrameType | None) -> Loop | None:
    """The loop of Keras that asks for an item, or LOOK; None of an item that is asked for by somebody else.

    Args:
        frame: Of the caller.
    """
    caller = caller_in(_ADAPTERS, frame)
    if caller is None:
        return None
    if caller.f_code.co_flags & inspect.CO_GENERATOR:
        return Loop(caller.f_locals.get("self"), caller)
    return LOOK if caller.f_code.co_name == _LOOK else None


class Call(NamedTuple):
    """A call of `fit` or `evaluate`, which compare the outputs of a network with targets.

    Attributes:
        name: Which of them.
        validation: The `validation_data` of `fit`; None if there is none.
    """

    name: str
    validation: Any


def call_of(data: object, frame: FrameType | None) -> Call | None:
    """The call of `fit` or `evaluate` whose data are `data`; None if it is another call of Keras.

    A callback of `fit` may evaluate or predict other data, whose calls come from that `fit` too.

    Args:
        data: The data.
        frame: Of the caller.
    """
    while frame is not None:
        name = frame.f_code.co_name
        if name in (_FIT, _EVALUATE) and str(frame.f_globals.get("__name__")).startswith("keras."):
            found = frame.f_locals
            return Call(name, found.get("validation_data")) if found.get("x") is data else None
        frame = frame.f_back
    return None


class Ended(NamedTuple):
    """A call of `on_epoch_end` by Keras.

    Attributes:
        adapter: The data adapter that calls.
        is_reset: Whether it is made ready for passes; else one is over, or pauses.
    """

    adapter: Any
    is_reset: bool


def ended_by(frame: FrameType | None) -> Ended | None:
    """What a call of `on_epoch_end` says; None where it is not Keras that calls.

    Args:
        frame: Of the caller.
    """
    caller = caller_in(_ADAPTERS, frame)
    if caller is None:
        return None
    above = caller.f_back
    return Ended(caller.f_locals.get("self"), above is not None and above.f_code.co_name == _RESET)
