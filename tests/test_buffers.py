"""Tests of BufferPool: a buffer is reused once its last reference is gone, and not before."""

from __future__ import annotations

import gc

import numpy as np

from h5split.batch.buffers import BufferPool


def address(array):
    return array.__array_interface__["data"][0]


def pool_of(*shape, dtype=np.uint8):
    return BufferPool(shape, dtype)


def lend(pool, count):
    return pool.lend(count)[0]


def test_an_unreferenced_buffer_is_reused():
    pool = pool_of(10)
    first = address(lend(pool, 100))
    assert address(lend(pool, 100)) == first
    assert address(lend(pool, 99)) == first


def test_views_memoryviews_and_capsules_keep_a_buffer_in_use():
    pool = pool_of(16)
    holders = [
        lend(pool, 64)[:32].reshape(2, 256)[1],
        memoryview(lend(pool, 64)),
        lend(pool, 64).view(np.float32).__dlpack__(),
        iter(lend(pool, 64)),
        np.asarray(lend(pool, 64)).T[3],
    ]
    held = {address(lend(pool, 64)) for _ in range(3)}
    assert len(held) == 1
    holders.clear()
    gc.collect()
    lent = [lend(pool, 64) for _ in range(6)]
    assert len({address(array) for array in lent}) == 6


def test_buffers_in_use_never_overlap():
    pool = pool_of(10)
    held = []
    for value in range(50):
        array = lend(pool, 10).reshape(100)
        array[:] = value
        held.append(array)
        if value % 3 == 0:
            held.pop(0)
    assert all((array == array[0]).all() for array in held)
    assert len({int(array[0]) for array in held}) == len(held)


def test_buffers_are_aligned_to_64_bytes():
    """Frameworks can then use them without a copy."""
    assert all(address(lend(pool_of(3, size), 2)) % 64 == 0 for size in (1, 100, 12_288, 1_000_001))
    assert address(lend(pool_of(5, dtype=np.float32), 3)) % 64 == 0


def test_a_larger_batch_gets_a_larger_buffer():
    pool = pool_of(4, 3)
    small = lend(pool, 10)
    assert lend(pool, 100).shape == (100, 4, 3)
    del small
    assert lend(pool, 100).shape == (100, 4, 3)


def test_items_share_memory_with_the_array_one_item_per_row():
    array, items = pool_of(4, 3, dtype=np.float32).lend(5)
    items[:] = np.arange(60, dtype=np.float32).reshape(5, 12).view("V48")[:, 0]
    assert array.tolist() == np.arange(60).reshape(5, 4, 3).tolist()


def test_buffers_outlive_their_pool():
    array = lend(pool_of(10), 10)
    gc.collect()
    array[:] = 7
    assert (array == 7).all()
