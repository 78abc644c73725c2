"""One queue of a device while it lives on a vhost-user connection: its setup, and the tasks that work on it.

A running queue has a leader, which takes requests one after the other. A request that never waits is done on the
spot, without a task of its own. One that does wait gives up the lead: another task goes on with the queue
meanwhile, so that a slow disk delays nobody else.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from typing import Final

import trio

from umlfs.host.loop_wait import LoopWait, Outcome
from umlfs.host.waiting import noticing_waits
from umlfs.virtio.device import VirtioDevice
from umlfs.virtio.rings import Polling, Ring
from umlfs.virtio.virtqueue import GuestMemory, RingError, Virtqueue, interrupt

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 2e-3
"""How long a leader may go on without letting other tasks run."""

VAIN_KICKS_MAX: Final = 64
"""Kicks in a row without a request. A driver kicks after it has added one; a few may come to nothing, since
the leader looks for itself, but not many in a row."""
VAIN_KICK_SECONDS: Final = 5e-3
"""How long each further one is left alone: a kick that never ends must not keep the processor busy."""

PATIENCE_SECONDS: Final = 500e-6
"""How long a leader waits for a kick by itself, while nobody else has anything to do."""

UNTOLD_MAX: Final = 64
"""Answers that nobody waits for until the guest is told of them, so that it can use their descriptors again; fewer
where the ring is small."""

REMIND_SECONDS: Final = 300e-6
"""How long a guest may be silent after an interrupt until it gets it again. An interrupt that comes just as the UML
kernel goes idle (from the look at its timer to the sigsuspend) is seen only at its next tick, up to 10 ms later: a
guest with one request at a time loses one in 30 so. Looking for requests ends with a reminder anyway."""

_clock = time.monotonic


def is_eventfd(descriptor: int) -> bool:
    """Whether `descriptor` is an eventfd: nothing else wakes a task once for any number of kicks, and never ends."""
    return os.readlink(f"/proc/self/fd/{descriptor}") == "anon_inode:[eventfd]"


class Vring:
    """One queue of the device. It runs once it is enabled, has rings, memory, and a kick descriptor."""

    def __init__(self, device: VirtioDevice, index: int, nursery: trio.Nursery) -> None:
        self.index = index
        self.size = 0
        self.base = 0
        """The index of the next request to take, while the queue is stopped."""
        self.addresses: tuple[int, int, int] | None = None
        """Of descriptors, available ring, used ring: the front end's."""
        self.enabled = False
        self._device = device
        self._nursery = nursery
        self._kick: int | None = None
        self._call: int | None = None
        self._ring: Virtqueue | None = None
        """Set while the queue runs."""
        self._workers: trio.Nursery | None = None
        """The tasks of the running queue."""
        self._ended = trio.Event()
        self._polling = Polling()
        self._wait = LoopWait()
        self._resumed = True
        """Trio has run the leader since it last let others run."""
        self._unsure = False
        """Since the last answer the guest has not been heard of, and was not reminded of it."""
        self._untold = 0
        """Answers since the last interrupt."""

    @property
    def running(self) -> bool:
        return self._ring is not None

    # Setup ------------------------------------------------------------------------------------

    async def set_kick(self, descriptor: int) -> None:
        """The eventfd by which the guest tells of requests; ours to close from now on. A running queue stops."""
        await self.stop()
        self._close_kick()
        self._kick = descriptor
        if not is_eventfd(descriptor):
            self._close_kick()
            raise OSError(errno.EINVAL, "the kick descriptor is not an eventfd")
        os.set_blocking(descriptor, False)

    def set_call(self, descriptor: int | None) -> None:
        """Where the guest wants to be told of answers; ours to close from now on."""
        if self._call is not None:
            os.close(self._call)
        self._call = descriptor
        if descriptor is not None:
            os.set_blocking(descriptor, False)

    async def start(self, memory: GuestMemory | None) -> None:
        """Run, if all is there that it takes and it does not run yet. RingError if the rings cannot be."""
        if not self.enabled or self.running or memory is None or self.addresses is None or self._kick is None:
            return
        self._ring = Ring(memory, self.size, *self.addresses, base=self.base)
        self._ended = trio.Event()
        await self._nursery.start(self._run, self._ring)

    async def stop(self) -> None:
        """Take no more requests, and return once none is under way: from then on the guest's memory is its own.

        Requests that wait are abandoned, without an answer; what a thread has begun is waited for.
        """
        if self._workers is not None:
            self._workers.cancel_scope.cancel()
        if self.running:
            await self._ended.wait()

    def remap(self, memory: GuestMemory) -> None:
        """A running queue goes on in a new mapping of the guest's memory. RingError if it cannot."""
        if self._ring is not None:
            self._ring.remap(memory)

    def close(self) -> None:
        """Give up the descriptors of a queue that does not run."""
        self._close_kick()
        self.set_call(None)

    def _close_kick(self) -> None:
        if self._kick is not None:
            os.close(self._kick)
            self._kick = None

    # Running ----------------------------------------------------------------------------------

    async def _run(self, ring: Virtqueue, task_status: trio.TaskStatus[None]) -> None:
        name = self._device.name
        try:
            async with trio.open_nursery() as workers:
                self._workers = workers
                workers.start_soon(self._lead, ring)
                task_status.started()
        except* (RingError, OSError) as group:
            # The queue is of no more use; the guest finds its requests unanswered.
            log.error("%s: queue %d stopped: %s", name, self.index, first(group))
        except* Exception:
            log.exception("%s: queue %d stopped by a bug", name, self.index)
        finally:
            self.base = ring.next_index
            self._ring = self._workers = None
            self._ended.set()

    async def _lead(self, ring: Virtqueue) -> None:
        """Take requests until somebody else has taken the lead."""
        kick = self._kick
        assert kick is not None
        vain = 0
        self._resumed = True
        while True:
            before = ring.next_index
            if not await self._take_turn(ring):
                return
            vain = vain + 1 if ring.next_index == before else 0
            if vain > VAIN_KICKS_MAX:
                await trio.sleep(VAIN_KICK_SECONDS)
            await self._kicked(kick)
            with contextlib.suppress(BlockingIOError):
                os.read(kick, 8)

    async def _kicked(self, kick: int) -> None:
        """Wait for a kick, and remind the guest once if none comes."""
        if self._resumed:  # let those run who were woken together with us
            self._resumed = False
            await trio.lowlevel.checkpoint()
        if self._unsure:
            if await self._came(kick, REMIND_SECONDS):
                return
            self._interrupt()
            self._unsure = False
        if self._wait.wait(kick, PATIENCE_SECONDS) is not Outcome.READY:
            await trio.lowlevel.wait_readable(kick)
            self._resumed = True

    async def _came(self, kick: int, seconds: float) -> bool:
        """Whether a kick comes within that time."""
        outcome = self._wait.wait(kick, seconds)
        if outcome is Outcome.OTHERS:  # not for us to wait: trio does, for all
            self._resumed = True
            with trio.move_on_after(seconds):
                await trio.lowlevel.wait_readable(kick)
                return True
        return outcome is Outcome.READY

    async def _take_turn(self, ring: Virtqueue) -> bool:
        """Take requests until there are no more. False if the lead went to another task meanwhile."""
        leading = True

        def pass_on() -> None:
            nonlocal leading
            leading = False
            assert self._workers is not None
            self._workers.start_soon(self._lead, ring)

        handle, index, polling = self._device.handle, self.index, self._polling
        at_once, statistics = self._device.at_once, self._device.statistics
        served = False
        ring.suppress_kicks()
        turn_ends = _clock() + TURN_SECONDS
        while True:
            call = -1 if self._call is None else self._call
            chain, answered, missed = ring.serve(at_once, statistics, polling, call, turn_ends, served)
            if answered:
                self._untold, served, self._unsure = 0, True, True
            now = _clock()
            if chain is not None:
                written = await noticing_waits(handle(index, chain), pass_on)
                ring.push(chain.head, written)
                self._tell(ring, written)
                statistics.took(_clock() - now)
                if not leading:
                    return False
                served = True
            elif now >= turn_ends:
                await trio.lowlevel.checkpoint()
                self._resumed = True
                turn_ends = _clock() + TURN_SECONDS
            else:
                if missed and self._unsure:
                    self._interrupt()
                    self._unsure = False
                ring.resume_kicks()
                if not ring.pending():
                    return True
                ring.suppress_kicks()

    def _tell(self, ring: Virtqueue, written: int) -> None:
        """Tell the guest of an answer. Nobody waits for one of no bytes: the guest hears of that with the next one,
        when it is silent for a while, or when there are many."""
        if not written:
            self._untold += 1
            self._unsure = True
            if self._untold < min(UNTOLD_MAX, ring.size // 4):
                return
        if ring.wants_interrupt():
            self._interrupt()
            self._unsure = True

    def _interrupt(self) -> None:
        """Tell the guest that something was pushed. A full pipe means that it has not looked yet."""
        self._untold = 0
        if self._call is not None:
            interrupt(self._call)


def first(group: BaseExceptionGroup[BaseException]) -> str:
    """An error of those in `group`, for a message. Not the error itself: its traceback would keep the guest's memory
    mapped for as long as anybody keeps the message."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
