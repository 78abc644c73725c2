# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""`Virtqueue` in C: see `umlfs/virtio/virtqueue.py`, which has the rules, and the reference that passes the same tests.

The guest may change its memory at any time. Each field of a ring or a descriptor is loaded once, by `load…`, which the
compiler must not repeat; what is checked is what is used.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.buffer cimport PyBUF_WRITABLE, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from umlfs.virtio.virtqueue import CHAIN_MAX as _CHAIN_MAX
from umlfs.virtio.virtqueue import IMAGE_MAX as _IMAGE_MAX
from umlfs.virtio.virtqueue import QUEUE_SIZE_MAX as _QUEUE_SIZE_MAX
from umlfs.virtio.polling import EXPONENT_MAX as _EXPONENT_MAX
from umlfs.virtio.polling import POLL_SECONDS as _POLL_SECONDS
from umlfs.virtio.virtqueue import RingError

VERSION = 1
"""The version of what `umlfs.virtio.virtqueue` asks of this module."""

cdef extern from *:
    """
    #include <sched.h>
    #include <stdint.h>
    #include <time.h>
    #include <unistd.h>
    static inline double clock_now(void) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double)time.tv_sec + time.tv_nsec * 1e-9;
    }
    static inline void interrupt(int descriptor) {
        uint64_t one = 1;
        /* A full one means that the guest has not looked yet. */
        if (descriptor >= 0 && write(descriptor, &one, sizeof one) < 0)
            return;
    }
    static inline uint16_t load16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
    static inline uint32_t load32(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED); }
    static inline uint64_t load64(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
    static inline void store16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
    static inline void store32(void *p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED); }
    static inline void barrier(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "rings are little-endian, and so is every processor that UML runs on"
    #endif
    """
    uint16_t load16(const void *) nogil
    uint32_t load32(const void *) nogil
    uint64_t load64(const void *) nogil
    void store16(void *, uint16_t) nogil
    void store32(void *, uint32_t) nogil
    void barrier() nogil
    double clock_now() nogil
    void interrupt(int) nogil
    int sched_yield() nogil





cdef enum:
    NEXT = 1
    WRITE = 2
    INDIRECT = 4

cdef uint32_t CHAIN_MAX = _CHAIN_MAX
cdef uint64_t CHAIN_BYTES_MAX = 0xFFFFFFFF
cdef Py_ssize_t IMAGE_MAX = _IMAGE_MAX
cdef int QUEUE_SIZE_MAX = _QUEUE_SIZE_MAX

cdef struct Span:
    uint64_t start
    uint64_t length
    const unsigned char *bytes


cdef int EXPONENT_MAX = _EXPONENT_MAX
cdef double POLL_SECONDS = _POLL_SECONDS


cdef class Chain:
    """As `umlfs.virtio.virtqueue.Chain`."""

    cdef public uint32_t head
    cdef public list readable
    cdef public list writable


cdef class Polling:
    """As `umlfs.virtio.polling.Polling`."""

    cdef int _vain
    cdef int _pause

    cpdef double seconds(self):
        """How long to look this time; 0 is not at all."""
        if self._pause:
            self._pause -= 1
            return 0.0
        return POLL_SECONDS

    cpdef found(self):
        """A request came while looking."""
        self._vain = 0

    cpdef missed(self):
        """None came."""
        self._pause = (1 << self._vain) - 1
        self._vain = min(self._vain + 1, EXPONENT_MAX)


cdef class Hold:
    """The memory behind a view, which stays while this does."""

    cdef Py_buffer buffer
    cdef bint held

    def __cinit__(self, view, bint writable):
        self.held = False
        PyObject_GetBuffer(view, &self.buffer, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)


cdef class Virtqueue:
    """As `umlfs.virtio.virtqueue.Virtqueue`."""

    cdef readonly int size
    cdef readonly object memory
    cdef object _addresses
    cdef Hold _descriptors
    cdef Hold _avail
    cdef Hold _used
    cdef const unsigned char *_table
    cdef const unsigned char *_available
    cdef unsigned char *_used_ring
    cdef uint16_t _next_avail
    cdef uint16_t _next_used
    cdef int _taken
    cdef Span *_spans
    cdef int _span_count
    cdef list _views
    cdef list _holds

    def __cinit__(self):
        self._spans = NULL
        self._span_count = 0

    def __dealloc__(self):
        PyMem_Free(self._spans)

    def __init__(self, memory, size, desc, avail, used, base=0):
        if not 0 < size <= QUEUE_SIZE_MAX or size & (size - 1):
            raise RingError(f"ring of {size} descriptors")
        if desc % 16 or avail % 2 or used % 4:
            raise RingError("ring not aligned")
        self.size = size
        self._addresses = desc, avail, used
        self._next_avail = base & 0xFFFF
        self._taken = 0
        self.remap(memory)
        self._next_used = load16(self._used_ring + 2)

    def remap(self, memory):
        """The same rings in a new mapping of the guest's memory. Chains popped before keep the old one."""
        desc, avail, used = self._addresses
        cdef Hold descriptors = Hold(memory.slice_user(desc, 16 * self.size), False)
        cdef Hold available = Hold(memory.slice_user(avail, 4 + 2 * self.size), False)
        cdef Hold used_view = Hold(memory.slice_user(used, 4 + 8 * self.size), True)
        # By the host's addresses: a front end's may be aligned where the mapping is not.
        if <size_t>available.buffer.buf % 2 or <size_t>used_view.buffer.buf % 4 or <size_t>descriptors.buffer.buf % 8:
            raise RingError("ring not aligned")
        regions = memory.regions
        cdef int count = len(regions), number
        cdef Span *spans = <Span *>PyMem_Malloc(max(count, 1) * sizeof(Span))
        if spans == NULL:
            raise MemoryError
        cdef Hold hold
        cdef list holds = []
        try:
            for number in range(count):
                hold = Hold(regions[number].view, False)
                holds.append(hold)
                spans[number].start = regions[number].start
                spans[number].length = hold.buffer.len
                spans[number].bytes = <const unsigned char *>hold.buffer.buf
        except BaseException:
            PyMem_Free(spans)
            raise
        PyMem_Free(self._spans)
        self._spans, self._span_count = spans, count
        self._views = [region.view for region in regions]
        self._holds = holds
        self.memory = memory
        self._descriptors, self._avail, self._used = descriptors, available, used_view
        self._table = <const unsigned char *>descriptors.buffer.buf
        self._available = <const unsigned char *>available.buffer.buf
        self._used_ring = <unsigned char *>used_view.buffer.buf

    @property
    def next_index(self):
        """The index (modulo 65536) of the next request to be popped."""
        return self._next_avail

    cpdef bint pending(self):
        """Whether the guest has offered something that was not popped."""
        return load16(self._available + 2) != self._next_avail

    cpdef pop(self):
        """The next request, or None. RingError for anything that breaks the rules."""
        cdef uint16_t offered = load16(self._available + 2)
        cdef uint16_t next_avail = self._next_avail
        if offered == next_avail:
            return None
        if <int>(<uint16_t>(offered - next_avail)) > self.size - self._taken:
            raise RingError(f"available index {offered} is past the ring (at {next_avail})")
        cdef int head = load16(self._available + 4 + 2 * (next_avail & (self.size - 1)))
        chain = self._chain(head)
        self._next_avail = next_avail + 1
        self._taken += 1
        return chain

    cpdef push(self, uint32_t head, uint32_t written):
        """Give back the request that began at descriptor `head`, `written` bytes having been written."""
        cdef uint16_t index = self._next_used
        cdef unsigned char *element = self._used_ring + 4 + 8 * (index & (self.size - 1))
        store32(element, head)
        store32(element + 4, written)
        index += 1
        self._next_used = index
        self._taken -= 1
        store16(self._used_ring + 2, index)

    def serve(self, at_once, statistics, Polling polling, int call, double until, bint served):
        """Take requests, answer them by `at_once`, and tell the guest by `call`, until one is not for it: that one is
        returned. None when there are no more, which is looked for as long as `polling` says (unless nothing was
        `served`), or at the time `until` (of the monotonic clock).

        Two more are returned: how many were answered, and whether looking for more was in vain."""
        cdef Chain chain
        cdef Py_ssize_t written
        cdef uint64_t count = 0
        cdef double looking = 0, before = clock_now(), present = before, taken, sum_ = 0, longest = 0
        cdef bint missed = False
        while present < until:
            chain = self.pop()
            if chain is not None:
                if looking:
                    polling.found()
                    looking = 0
                before = present
                written = -1 if at_once is None else at_once(chain.readable, chain.writable)
                if written < 0:
                    break
                self.push(chain.head, written)
                if self.wants_interrupt():
                    with nogil:
                        interrupt(call)
                count += 1
                present = clock_now()
                taken = present - before
                sum_ += taken
                longest = max(longest, taken)
            elif not looking:
                looking = polling.seconds() if served or count else 0
                if not looking:
                    break
                looking += present
            elif present < looking:
                with nogil:
                    sched_yield()
                present = clock_now()
            else:
                missed = True
                polling.missed()
                break
        else:
            chain = None
        if count:
            statistics.took_some(count, sum_, longest)
        return chain, count, missed

    cpdef bint wants_interrupt(self):
        """Whether the guest wants to be told of what was pushed."""
        barrier()
        return not load16(self._available) & 1

    cpdef suppress_kicks(self):
        """The guest need not kick: the caller looks for itself."""
        store16(self._used_ring, 1)

    cpdef resume_kicks(self):
        """The guest must kick again. What it offered meanwhile, `pending` tells afterwards."""
        store16(self._used_ring, 0)
        barrier()

    cdef _chain(self, int head):
        if head >= self.size:
            raise RingError(f"descriptor {head} of {self.size}")
        cdef const unsigned char *row = self._table + 16 * head
        cdef uint64_t address = load64(row)
        cdef uint32_t length = load32(row + 8)
        cdef uint16_t flags = load16(row + 12)
        if flags & INDIRECT:
            if flags & NEXT:
                raise RingError("an indirect descriptor goes on")
            if not length or length % 16 or length > 16 * CHAIN_MAX:
                raise RingError(f"an indirect table of {length} bytes")
            return self._walk(head, self._table_at(address, length), length // 16, 0)
        return self._walk(head, self._table, self.size, head)

    cdef const unsigned char *_table_at(self, uint64_t address, uint32_t length) except NULL:
        """Where `length` bytes at `address` are, all in one region. RingError."""
        cdef uint64_t offset
        cdef int number
        for number in range(self._span_count):
            if address >= self._spans[number].start:
                offset = address - self._spans[number].start
                if offset < self._spans[number].length and length <= self._spans[number].length - offset:
                    return self._spans[number].bytes + offset
        raise RingError(f"{length} bytes at {address:#x} are outside guest memory")

    cdef _walk(self, int head, const unsigned char *table, uint32_t entries, uint32_t index):
        """Follow a chain, joining descriptors that lie side by side in memory. `index` is one of the `entries`."""
        cdef list readable = [], writable = []
        cdef dict copies = {}
        cdef uint64_t total = 0, address, run_start = 0, run_length = 0
        cdef uint32_t length, steps
        cdef uint16_t flags, write, run_write = 0
        cdef const unsigned char *row
        cdef Chain chain
        for steps in range(min(entries, CHAIN_MAX)):
            row = table + 16 * <size_t>index
            address = load64(row)
            length = load32(row + 8)
            flags = load16(row + 12)
            index = load16(row + 14)
            write = flags & WRITE
            if flags & INDIRECT:
                raise RingError("an indirect descriptor inside a chain")
            if write < run_write:
                raise RingError("a readable descriptor after a writable one")
            total += length
            # No sum of 64 bits wraps: a run is of at most CHAIN_MAX * 2**32 bytes, and lies where `_add` checks.
            if run_length and write == run_write and run_start <= 0xFFFFFFFFFFFFFFFF - run_length \
                    and address == run_start + run_length:
                run_length += length
            else:
                if run_length:
                    self._add(writable if run_write else readable, run_start, run_length, run_write != 0, copies)
                run_start, run_length, run_write = address, length, write
            if not flags & NEXT:
                if total > CHAIN_BYTES_MAX:
                    raise RingError(f"a chain of {total} bytes")
                if run_length:
                    self._add(writable if run_write else readable, run_start, run_length, run_write != 0, copies)
                chain = Chain.__new__(Chain)
                chain.head, chain.readable, chain.writable = head, readable, writable
                return chain
            if index >= entries:
                raise RingError(f"descriptor {index} of {entries}")
        raise RingError("a descriptor chain without an end")

    cdef int _add(self, list buffers, uint64_t address, uint64_t length, bint write, dict copies) except -1:
        """The bytes at `address`: views of the guest's memory, or of a copy of its kernel's image if they may be read."""
        cdef uint64_t offset
        cdef int number
        for number in range(self._span_count):
            if address >= self._spans[number].start:
                offset = address - self._spans[number].start
                if offset < self._spans[number].length and length <= self._spans[number].length - offset:
                    view = self._views[number]
                    buffers.append(view[offset : offset + length])
                    return 0
        # In several regions, in the image, or nowhere: rare, and the reference knows.
        try:
            buffers.extend(self.memory.pieces(address, length))
        except RingError:
            if write:
                raise
            key = address, length
            if key not in copies:
                if sum(map(len, copies.values())) + length > IMAGE_MAX:
                    raise
                copies[key] = self.memory.image(address, length)
            buffers.append(copies[key])
        return 0
