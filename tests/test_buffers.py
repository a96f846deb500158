"""Buffers come back when the last holder lets go, and not before."""

from __future__ import annotations

import gc

import numpy as np

from h5split.buffers import BufferPool


def address(array):
    return array.__array_interface__["data"][0]


def test_a_buffer_is_used_again_when_nobody_holds_it():
    pool = BufferPool()
    first = address(pool.lend(1000))
    assert address(pool.lend(1000)) == first


def test_views_memoryviews_and_capsules_hold_a_buffer():
    pool = BufferPool()
    holders = [
        pool.lend(1024)[:512].reshape(2, 256)[1],
        memoryview(pool.lend(1024)),
        pool.lend(1024).view(np.float32).__dlpack__(),
        iter(pool.lend(1024)),
    ]
    held = {address(pool.lend(1024)) for _ in range(3)}
    assert len(held) == 1
    holders.clear()
    gc.collect()
    lent = [pool.lend(1024) for _ in range(5)]
    assert len({address(array) for array in lent}) == 5


def test_held_buffers_never_overlap():
    pool = BufferPool()
    held = []
    for value in range(50):
        array = pool.lend(100)[:100]
        array[:] = value
        held.append(array)
        if value % 3 == 0:
            held.pop(0)
    assert all((array == array[0]).all() for array in held)
    assert len({int(array[0]) for array in held}) == len(held)


def test_buffers_are_aligned_for_frameworks_to_use_in_place():
    pool = BufferPool()
    assert all(address(pool.lend(size)) % 64 == 0 for size in (1, 100, 12_288, 1_000_001))


def test_a_larger_batch_gets_a_larger_buffer():
    pool = BufferPool()
    small = pool.lend(100)
    assert len(pool.lend(1000)) >= 1000
    del small
    assert len(pool.lend(1000)) >= 1000


def test_buffers_outlive_their_pool():
    array = BufferPool().lend(100)
    gc.collect()
    array[:] = 7
    assert (array == 7).all()
