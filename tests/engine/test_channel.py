"""The channel: it equals its model, keeps its bound, and loses nothing to cancellation."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antflow._core.envelope import DEFAULT_PRIORITY
from antflow._engine.channel import Channel
from antflow.testing import Stalled, run_virtual

OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from([1, DEFAULT_PRIORITY, 200])),
    st.tuples(st.just("put_first"), st.sampled_from([1, DEFAULT_PRIORITY, 200])),
    st.tuples(st.just("take"), st.just(0)),
)


class Model:
    """What a channel is, written down naively: a sorted list."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, int]] = []
        self.serial = 0

    def put(self, item: int, priority: int, *, first: bool) -> None:
        self.serial += 1
        self.entries.append((priority, -self.serial if first else self.serial, item))
        self.entries.sort()

    def take(self) -> int | None:
        return self.entries.pop(0)[2] if self.entries else None


@given(st.lists(OPERATIONS, max_size=60), st.integers(0, 5))
@example(
    [("put", DEFAULT_PRIORITY)] * 9 + [("put", 200), ("put", DEFAULT_PRIORITY)] + [("take", 0)] * 9,
    5,
)
def test_channel_equals_its_model(operations: list[tuple[str, int]], capacity: int) -> None:
    """Any puts and takes give the order of the model, and the same answer about room."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        model = Model()
        for number, (operation, priority) in enumerate(operations):
            if operation == "take":
                assert channel.take() == model.take()
            elif operation == "put":
                model.put(number, priority, first=False)
                assert channel.put(number, priority) == (len(model.entries) > capacity)
            else:
                model.put(number, priority, first=True)
                channel.put_first(number, priority)
            assert len(channel) == len(model.entries)
            assert channel.blocked == 0, "nobody waits for room here"
        channel.close()
        assert channel.drain() == [entry[2] for entry in model.entries]
        assert len(channel) == 0

    run_virtual(main)


async def _send(channel: Channel[int], items: range) -> None:
    for item in items:
        if channel.put(item):
            await channel.room()


async def _receive(channel: Channel[int], got: list[int], pause: float = 0.0) -> None:
    while True:
        item = channel.take()
        if item is not None:
            got.append(item)
            await asyncio.sleep(pause)
        elif channel.is_closed:
            return
        else:
            await channel.wait()


@pytest.mark.parametrize("capacity", [0, 1, 3, None])
@pytest.mark.parametrize("seed", range(20))
def test_channel_delivers_everything_once_to_many(capacity: int | None, seed: int) -> None:
    """Three senders and three receivers, in any schedule: each item arrives exactly once."""

    async def main() -> list[int]:
        channel: Channel[int] = Channel(capacity)
        got: list[int] = []
        async with asyncio.TaskGroup() as receivers:
            for _ in range(3):
                receivers.create_task(_receive(channel, got))
            async with asyncio.TaskGroup() as senders:
                for first in (0, 100, 200):
                    senders.create_task(_send(channel, range(first, first + 20)))
            channel.close()
        return got

    got = run_virtual(main, seed=seed)
    assert sorted(got) == [*range(20), *range(100, 120), *range(200, 220)]


def test_channel_with_one_receiver_keeps_each_senders_order() -> None:
    """FIFO: what one sender puts arrives in its order."""

    async def main() -> list[int]:
        channel: Channel[int] = Channel(2)
        got: list[int] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(_receive(channel, got))
            await _send(channel, range(50))
            channel.close()
        return got

    assert run_virtual(main) == list(range(50))


def test_channel_never_holds_more_than_capacity_and_senders() -> None:
    """A slow receiver: the bound is the capacity, and one item for each sender that waits."""

    async def main() -> int:
        channel: Channel[int] = Channel(4)
        most = 0
        got: list[int] = []

        async def send() -> None:
            nonlocal most
            for item in range(30):
                must_wait = channel.put(item)
                most = max(most, len(channel))
                if must_wait:
                    await channel.room()

        async with asyncio.TaskGroup() as group:
            receiver = group.create_task(_receive(channel, got, pause=0.01))
            async with asyncio.TaskGroup() as senders:
                for _ in range(3):
                    senders.create_task(send())
            channel.close()
            await receiver
        assert len(got) == 90
        return most

    assert run_virtual(main) <= 4 + 3


def test_sender_waits_until_its_item_is_taken_when_capacity_is_zero() -> None:
    """Hand to hand: the sender goes on only after the receiver came."""

    async def main() -> list[str]:
        channel: Channel[str] = Channel(0)
        log: list[str] = []

        async def send() -> None:
            channel.put("item")
            await channel.room()
            log.append("sender goes on")

        sender = asyncio.create_task(send())
        await asyncio.sleep(1)
        log.append("receiver comes")
        channel.take()
        await sender
        return log

    assert run_virtual(main) == ["receiver comes", "sender goes on"]


def test_receiver_cancelled_after_its_wake_up_passes_it_on() -> None:
    """The wake-up of a receiver that is cancelled in the same tick is not lost."""

    async def main() -> list[int]:
        channel: Channel[int] = Channel(10)
        got: list[int] = []
        first = asyncio.create_task(_receive(channel, []))
        second = asyncio.create_task(_receive(channel, got))
        await asyncio.sleep(1)
        channel.put(7)
        await asyncio.sleep(0)  # the bell has rung, the first receiver has not run yet
        first.cancel()
        await asyncio.sleep(1)
        channel.close()
        await asyncio.wait([first, second])
        return got

    assert run_virtual(main) == [7]


@pytest.mark.parametrize("delay", range(6))
def test_sender_cancelled_while_it_waits_leaves_its_item(delay: int) -> None:
    """A cancelled sender's item is in the channel, at whatever moment the cancellation comes."""

    async def main() -> list[int]:
        channel: Channel[int] = Channel(1)
        sender = asyncio.create_task(_send(channel, range(2)))
        await asyncio.sleep(0)
        if delay > 2:
            channel.take()
        for _ in range(delay):
            await asyncio.sleep(0)
        sender.cancel()
        await asyncio.wait([sender])
        return channel.drain()

    assert run_virtual(main) == ([0, 1] if delay <= 2 else [1])


def test_cancelled_sender_does_not_hold_up_those_behind_it() -> None:
    """Room goes to the next sender when the one at the head of the line was cancelled."""

    async def main() -> None:
        channel: Channel[int] = Channel(0)
        senders = [asyncio.create_task(_send(channel, range(n, n + 1))) for n in range(3)]
        await asyncio.sleep(1)
        senders[0].cancel()
        while channel.take() is not None:
            pass
        await asyncio.wait(senders)
        assert [sender.cancelled() for sender in senders] == [True, False, False]

    run_virtual(main)


def test_closed_channel_sets_late_items_aside() -> None:
    """What is put after close cannot be taken and is found by drain."""

    async def main() -> None:
        channel: Channel[int] = Channel(5)
        channel.put(1)
        channel.close()
        assert channel.put(2) is False
        channel.put_first(3)
        assert channel.take() == 1
        assert channel.take() is None
        assert channel.drain() == [2, 3]

    run_virtual(main)


def test_empty_channel_is_not_false() -> None:
    """`channel or default` gives the channel."""

    async def main() -> bool:
        return bool(Channel(1))

    assert run_virtual(main)


def test_idle_channel_sets_no_timer() -> None:
    """Receivers of an empty channel and senders of a full one wait without any timer."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        empty: Channel[int] = Channel(1)
        full: Channel[int] = Channel(0)
        async with asyncio.TaskGroup() as group:
            for item in range(400):
                group.create_task(_receive(empty, []))
                group.create_task(_send(full, range(item, item + 1)))

    with pytest.raises(Stalled):
        run_virtual(main)
    assert loops[0].time() == 0, "time moves only to a timer"


@pytest.mark.parametrize("sleepers", [1, 10])
def test_burst_wakes_one_receiver_when_that_is_enough(sleepers: int) -> None:
    """A hundred puts cost one wake-up while the woken receiver keeps up."""

    async def main() -> int:
        channel: Channel[int] = Channel(None)
        woken = 0

        async def receive() -> None:
            nonlocal woken
            while not channel.is_closed:
                await channel.wait()
                woken += 1
                while channel.take() is not None:
                    pass

        receivers = [asyncio.create_task(receive()) for _ in range(sleepers)]
        await asyncio.sleep(1)
        for item in range(100):
            channel.put(item)
        await asyncio.sleep(1)
        answer = woken
        channel.close()
        await asyncio.wait(receivers)
        return answer

    assert run_virtual(main) == 1


def test_recruit_is_called_only_when_no_receiver_sleeps() -> None:
    """New receivers are asked for one at a time, while there is work that nobody takes."""

    async def main() -> int:
        recruits = 0

        def recruit() -> bool:
            nonlocal recruits
            recruits += 1
            return recruits < 3

        channel: Channel[int] = Channel(None, recruit=recruit)
        channel.put(1)
        await asyncio.sleep(1)
        return recruits

    assert run_virtual(main) == 3


def test_channel_says_how_many_senders_wait() -> None:
    """A sender that waits for room is counted, and its item is inside."""

    async def main() -> None:
        channel: Channel[int] = Channel(1)
        sender = asyncio.create_task(_send(channel, range(2)))
        await asyncio.sleep(1)
        assert (len(channel), channel.blocked) == (2, 1)
        channel.take()
        await sender

    run_virtual(main)


def test_channel_does_not_ring_while_all_receivers_are_at_work() -> None:
    """New items cost no turn of the event loop until a receiver parks, or may be recruited."""

    async def main() -> None:
        places = [True]
        channel: Channel[int] = Channel(None, recruit=lambda: bool(places and places.pop()))
        channel.put(0)
        await asyncio.sleep(0)  # the bell recruits the only receiver there can be
        await asyncio.sleep(0)  # and finds none for what is left
        for item in range(1, 4):
            channel.put(item)
            assert channel.bell is None
        assert [channel.take() for _ in range(5)] == [0, 1, 2, 3, None]
        parked = asyncio.ensure_future(channel.wait())
        await asyncio.sleep(0)
        channel.put(4)
        async with asyncio.timeout(1):
            await parked
        places.append(True)
        channel.ring()  # as one who can be recruited again must
        await asyncio.sleep(0)
        assert not places

    run_virtual(main)
