"""Split virtqueues, with drivers that keep to the rules and drivers that do not."""

from __future__ import annotations

import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.compiled import compiled
from tests.virtio.ring import INDIRECT, NEXT, WRITE, DriverRing
from umlfs.virtio.rings import VERSION
from umlfs.virtio.virtqueue import (
    CHAIN_BYTES_MAX,
    CHAIN_MAX,
    QUEUE_SIZE_MAX,
    Chain,
    GuestMemory,
    Region,
    RingError,
    Virtqueue,
)

BASE = 0x1000_0000
USER = 0x7000_0000_0000


Ring: type[Virtqueue] = Virtqueue


@pytest.fixture(autouse=True, scope="module", params=["reference", "compiled"])
def ring(request: pytest.FixtureRequest) -> None:
    """Everything here holds of both."""
    global Ring
    Ring = Virtqueue if request.param == "reference" else compiled("umlfs.virtio._virtqueue", VERSION).Virtqueue


def pair(size: int = 8, memory: int = 1 << 17) -> tuple[DriverRing, Virtqueue]:
    """The two sides of a ring."""
    view = memoryview(bytearray(memory))
    driver = DriverRing(view, BASE, size)
    desc, avail, used = (address + USER for address in driver.addresses)
    return driver, Ring(GuestMemory([Region(BASE, BASE + USER, view)]), size, desc, avail, used)


def popped(queue: Virtqueue) -> Chain:
    chain = queue.pop()
    assert chain is not None
    return chain


def broken(queue: Virtqueue, match: str) -> None:
    with pytest.raises(RingError, match=match):
        queue.pop()


# Drivers that keep to the rules ---------------------------------------------------------------


def test_a_ring_from_bytes() -> None:
    """Laid out by hand: one descriptor of 3 readable bytes, one of 2 writable."""
    memory = bytearray(0x3000)
    memory[0x0:0x10] = bytes.fromhex("0020000000000000 03000000 0100 0100")
    memory[0x10:0x20] = bytes.fromhex("1020000000000000 02000000 0200 0000")
    memory[0x1000:0x1008] = bytes.fromhex("0000 0100 0000 0000")
    memory[0x2000:0x2003] = b"abc"
    view = memoryview(memory)
    queue = Ring(GuestMemory([Region(0, 0, view)]), 2, 0, 0x1000, 0x1800)
    chain = popped(queue)
    assert chain.head == 0
    assert [bytes(part) for part in chain.readable] == [b"abc"]
    chain.writable[0][:] = b"xy"
    queue.push(0, 2)
    assert memory[0x2010:0x2012] == b"xy"
    assert memory[0x1800:0x180C] == bytes.fromhex("0000 0100 00000000 02000000")
    assert queue.pop() is None


@pytest.mark.parametrize("indirect", [False, True])
def test_requests_come_in_order_and_go_in_any(indirect: bool) -> None:
    driver, queue = pair()
    first = driver.add([b"first"], [5], indirect=indirect)
    second = driver.add([b"second"], [6], indirect=indirect)
    chains = [popped(queue), popped(queue)]
    assert [chain.head for chain in chains] == [first, second]
    assert queue.pop() is None
    for chain, word in zip(reversed(chains), (b"answer", b"reply"), strict=True):
        chain.writable[0][:] = word
        queue.push(chain.head, len(word))
    assert driver.collect() == [(second, b"answer"), (first, b"reply")]


def test_indices_wrap_around() -> None:
    driver, queue = pair(2)
    for _ in range((1 << 16) + 3):
        head = driver.add([b"x"], [])
        chain = popped(queue)
        assert chain.head == head
        queue.push(head, 0)
        assert driver.collect() == [(head, b"")]
    assert queue.next_index == 3


def test_neighbours_in_memory_are_one_buffer() -> None:
    driver, queue = pair()
    start = driver.allocate(40)
    driver.add_rows([(start, 10, 0), (start + 10, 0, 0), (start + 10, 5, 0), (start + 16, 4, 0)], [])
    assert [len(part) for part in popped(queue).readable] == [15, 4]
    driver.add_rows([(start, 10, 0), (start + 10, 10, WRITE), (start + 20, 10, WRITE)], [])
    chain = popped(queue)
    assert [len(part) for part in chain.readable] == [10]
    assert [len(part) for part in chain.writable] == [20]


def test_empty_descriptors_are_nothing() -> None:
    driver, queue = pair()
    driver.add_rows([(0, 0, 0), (2**64 - 1, 0, 0), (0, 0, WRITE)], [])
    chain = popped(queue)
    assert (chain.readable, chain.writable) == ([], [])


def test_a_buffer_over_two_regions() -> None:
    low, high = bytearray(b"l" * 4096), bytearray(b"h" * 4096)
    memory = GuestMemory([Region(BASE + 4096, 0, memoryview(high)), Region(BASE, 0, memoryview(low))])
    assert [bytes(part) for part in memory.pieces(BASE + 4094, 5)] == [b"ll", b"hhh"]
    assert bytes(memory.slice(BASE + 4096, 2)) == b"hh"
    with pytest.raises(RingError):
        memory.slice(BASE + 4095, 2)
    for address, length in ((BASE + 4095, 4098), (BASE - 1, 2), (BASE + 8192, 1), (2**64 - 1, 2)):
        with pytest.raises(RingError):
            memory.pieces(address, length)


def test_kicks_and_interrupts() -> None:
    driver, queue = pair()
    queue.suppress_kicks()
    assert not driver.wants_kick
    queue.resume_kicks()
    assert driver.wants_kick
    assert queue.wants_interrupt()
    driver.interrupts(False)
    assert not queue.wants_interrupt()
    assert not queue.pending()
    driver.add([b"x"], [])
    assert queue.pending()


def test_a_ring_goes_on_where_it_was() -> None:
    driver, queue = pair()
    for _ in range(3):
        driver.add([b"x"], [])
        queue.push(popped(queue).head, 0)
    driver.collect()
    desc, avail, used = (address + USER for address in driver.addresses)
    queue = Ring(queue.memory, 8, desc, avail, used, base=queue.next_index)
    head = driver.add([b"y"], [1])
    queue.push(popped(queue).head, 1)
    assert [found for found, _ in driver.collect()] == [head]


def test_a_ring_in_a_new_mapping() -> None:
    driver, queue = pair()
    driver.add([b"x"], [])
    chain = popped(queue)
    view = memoryview(bytearray(driver.memory))
    queue.remap(GuestMemory([Region(BASE, BASE + USER, view)]))
    driver.memory = view
    queue.push(chain.head, 0)
    assert len(driver.collect()) == 1
    with pytest.raises(RingError):
        queue.remap(GuestMemory([Region(BASE, BASE, view)]))
    driver.add([b"y"], [])
    assert popped(queue).readable == [b"y"]


# Drivers that do not --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 3, 2 * QUEUE_SIZE_MAX, 1 << 16, -1])
def test_sizes_of_rings(size: int) -> None:
    with pytest.raises(RingError):
        Ring(GuestMemory([Region(0, 0, memoryview(bytearray(1 << 22)))]), size, 0, 1 << 20, 1 << 21)


@pytest.mark.parametrize(("desc", "avail", "used"), [(8, 0, 0), (0, 1, 0), (0, 0, 2), (1 << 12, 0, 0), (0, 4080, 0)])
def test_places_of_rings(desc: int, avail: int, used: int) -> None:
    with pytest.raises(RingError):
        Ring(GuestMemory([Region(0, 0, memoryview(bytearray(1 << 12)))]), 8, desc, avail, used)


@pytest.mark.parametrize(
    "regions", [[(0, 10), (9, 10)], [(0, 10), (0, 10)], [(2**64 - 5, 10)], [(0, 100), (10, 10)], [(2**64, 1)]]
)
def test_regions_that_cannot_be(regions: list[tuple[int, int]]) -> None:
    with pytest.raises(RingError):
        GuestMemory([Region(start, 0, memoryview(bytearray(size))) for start, size in regions])


def test_more_offered_than_the_ring_holds() -> None:
    for offered in (9, 100, 0xFFFF):
        driver, queue = pair()
        driver.set_index(offered)
        broken(queue, "past the ring")


def test_more_under_way_than_the_ring_holds() -> None:
    driver, queue = pair()
    for _ in range(8):
        driver.add([b"x"], [])
    for _ in range(8):
        popped(queue)
    driver.set_index(9)
    broken(queue, "past the ring")


def test_heads_past_the_ring() -> None:
    for head in (8, 0xFFFF):
        driver, queue = pair()
        driver.offer(head)
        broken(queue, f"descriptor {head} of 8")


@pytest.mark.parametrize("following", [8, 9, 0xFFFF])
def test_links_past_the_ring(following: int) -> None:
    driver, queue = pair()
    driver.descriptor(0, BASE, 1, NEXT, following)
    driver.offer(0)
    broken(queue, f"descriptor {following} of 8")


def test_loops() -> None:
    driver, queue = pair()
    for number in range(3):
        driver.descriptor(number, BASE, 1, NEXT, (number + 1) % 3)
    driver.offer(0)
    broken(queue, "without an end")


def test_loops_of_nothing() -> None:
    driver, queue = pair()
    driver.descriptor(0, BASE, 0, NEXT, 0)
    driver.offer(0)
    broken(queue, "without an end")


@pytest.mark.parametrize(
    ("address", "length"),
    [(BASE - 1, 1), (BASE + (1 << 17), 1), (BASE, (1 << 17) + 1), (0, 1), (2**64 - 1, 1), (2**64 - 1, 2**32 - 1)],
)
@pytest.mark.parametrize("flags", [0, WRITE])
def test_addresses_outside_memory(address: int, length: int, flags: int) -> None:
    driver, queue = pair()
    driver.add_rows([(address, length, flags)], [])
    broken(queue, "outside guest memory")


def test_neighbours_across_the_end_of_memory() -> None:
    driver, queue = pair()
    end = BASE + (1 << 17)
    driver.add_rows([(end - 1, 1, 0), (end, 1, 0)], [])
    broken(queue, "outside guest memory")


def test_addresses_that_wrap_around() -> None:
    driver, queue = pair()
    driver.add_rows([(2**64 - 8, 8, 0), (0, 8, 0)], [])
    broken(queue, "outside guest memory")


def test_readable_after_writable() -> None:
    driver, queue = pair()
    driver.add_rows([(BASE, 1, WRITE), (BASE, 1, 0)], [])
    broken(queue, "readable descriptor after")


@pytest.mark.parametrize("length", [0, 1, 15, 17, 16 * CHAIN_MAX + 16, 2**32 - 16])
def test_indirect_tables_of_no_size(length: int) -> None:
    driver, queue = pair()
    driver.add_rows([(BASE, length, INDIRECT)], [])
    broken(queue, "indirect table of")


def test_indirect_tables_outside_memory() -> None:
    driver, queue = pair()
    driver.add_rows([(BASE + (1 << 17) - 16, 32, INDIRECT)], [])
    broken(queue, "outside guest memory")


def test_indirect_tables_that_go_on() -> None:
    driver, queue = pair()
    driver.add_rows([(BASE, 16, INDIRECT), (BASE, 1, 0)], [])
    broken(queue, "goes on")


def test_indirect_tables_in_a_chain() -> None:
    driver, queue = pair()
    driver.add_rows([(BASE, 1, 0), (BASE, 16, INDIRECT)], [])
    broken(queue, "inside a chain")


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ((BASE, 16, INDIRECT, 0), "inside a chain"),
        ((BASE, 1, NEXT, 1), "descriptor 1 of 1"),
        ((BASE, 1, NEXT, 0), "without an end"),
        ((0, 1, 0, 0), "outside guest memory"),
    ],
)
def test_what_indirect_tables_must_not_hold(entry: tuple[int, int, int, int], match: str) -> None:
    driver, queue = pair()
    table = driver.allocate(16, 16)
    driver.poke(table, struct.pack("<QIHH", *entry))
    driver.add_rows([(table, 16, INDIRECT)], [])
    broken(queue, match)


def test_the_same_memory_many_times() -> None:
    """A gigabyte of requests in 16 MiB of memory: a chain has its limit, whatever lies in it."""
    size = 16 << 20
    driver, queue = pair(256, size)
    rows = [(BASE + 16384 * (number % 2), size - 16384, WRITE) for number in range(255)]
    driver.add_rows(rows, [])
    assert sum(map(len, popped(queue).writable)) <= CHAIN_BYTES_MAX
    table = driver.allocate(16 * 300, 16)
    for number in range(300):
        flags = WRITE | (NEXT if number < 299 else 0)
        driver.poke(table + 16 * number, struct.pack("<QIHH", BASE + number % 2, size - 2, flags, number + 1))
    driver.add_rows([(table, 16 * 300, INDIRECT)], [])
    broken(queue, "a chain of")


# Any driver at all ----------------------------------------------------------------------------

_ADDRESS = st.one_of(
    st.integers(BASE - 64, BASE + 8192),
    st.integers(0, 64),
    st.integers(2**64 - 64, 2**64 - 1),
)
_LENGTH = st.one_of(st.integers(0, 64), st.integers(0, 9000), st.integers(2**32 - 64, 2**32 - 1))
_DESCRIPTOR = st.tuples(_ADDRESS, _LENGTH, st.integers(0, 7), st.integers(0, 9))


@given(
    descriptors=st.lists(_DESCRIPTOR, min_size=8, max_size=8),
    heads=st.lists(st.integers(0, 9), min_size=8, max_size=8),
    offered=st.integers(0, 10),
)
def test_any_ring_is_popped_or_refused(
    descriptors: list[tuple[int, int, int, int]], heads: list[int], offered: int
) -> None:
    driver, queue = pair(8, 8192)
    for number, (address, length, flags, following) in enumerate(descriptors):
        driver.descriptor(number, address, length, flags, following)
    for head in heads:
        driver.offer(head)
    driver.set_index(offered)
    before = bytes(driver.memory)
    chains: list[Chain] = []
    try:
        while (chain := queue.pop()) is not None:
            chains.append(chain)
    except RingError:
        pass
    assert bytes(driver.memory) == before
    assert len(chains) <= offered
    for chain in chains:
        for part in (*chain.readable, *chain.writable):
            assert part.obj is driver.memory.obj  # inside the region, for a slice cannot be elsewhere
            assert 0 < len(part) <= 8192
        queue.push(chain.head, 1)
    index = int.from_bytes(driver.memory[driver.used + 2 : driver.used + 4], "little")
    assert index == len(chains)


@given(st.binary(min_size=1, max_size=2048), st.integers(0, 0xFFFF))
def test_any_memory_is_popped_or_refused(data: bytes, base: int) -> None:
    memory = bytearray(data * (4096 // len(data) + 1))
    queue = Ring(GuestMemory([Region(0, 0, memoryview(memory))]), 16, 0, 512, 1024, base)
    try:
        while (chain := queue.pop()) is not None:
            assert all(len(part) <= len(memory) for part in (*chain.readable, *chain.writable))
            queue.push(chain.head, 0)
    except RingError:
        pass


@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.binary(max_size=50), max_size=3), st.lists(st.integers(0, 50), max_size=3), st.booleans()
        ),
        max_size=40,
    ),
)
def test_what_a_driver_offers_arrives(requests: list[tuple[list[bytes], list[int], bool]]) -> None:
    driver, queue = pair(16)
    expected: dict[int, bytes] = {}
    under_way: list[Chain] = []
    for readable, writable, indirect in requests:
        if not readable and not writable:
            continue
        if len(driver._free) < 6:
            for chain in under_way:
                queue.push(chain.head, sum(map(len, chain.writable)))
            under_way.clear()
            assert {head for head, _ in driver.collect()} == set(expected)
            expected.clear()
        head = driver.add(readable, writable, indirect=indirect)
        chain = popped(queue)
        assert chain.head == head
        assert b"".join(chain.readable) == b"".join(readable)
        assert sum(map(len, chain.writable)) == sum(writable)
        expected[head] = b""
        under_way.append(chain)
