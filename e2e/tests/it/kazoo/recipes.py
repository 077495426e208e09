"""Programs of kazoo's users: recipes.py NAME HOSTS.

Each runs again and again, on other znodes, until standard input is closed: who started it kills the leader meanwhile.
"""
import logging
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, KazooException, OperationTimeoutError, SessionExpiredError
from kazoo.retry import KazooRetry

NAME, HOSTS = sys.argv[1], sys.argv[2]
LOST = (ConnectionLoss, SessionExpiredError, OperationTimeoutError)
PATIENCE = 120
WORKERS, ROUNDS = 4, 12
logging.basicConfig(level=logging.CRITICAL)


def at(path):
    """A path of this turn's own; in the first turn the path as it is."""
    return f"/turn-{turn}{path}" if turn else path


def client():
    retry = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5)
    zk = KazooClient(hosts=HOSTS, timeout=10, connection_retry=retry, command_retry=retry.copy())
    zk.start(timeout=PATIENCE)
    return zk


def until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def at_once(work, count=WORKERS):
    """Runs `work(number, client)` in threads with a client each; the first failure is raised."""
    failures = []

    def run(number):
        zk = client()
        try:
            work(number, zk)
        except BaseException as failure:
            failures.append(failure)
        finally:
            zk.stop()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 2)
        assert not thread.is_alive(), "a client hangs"
    if failures:
        raise failures[0]


class Alone:
    """Fails if two are inside at once."""

    def __init__(self):
        self.inside = threading.Lock()
        self.times = 0

    def __enter__(self):
        assert self.inside.acquire(blocking=False), "two hold it at once"
        self.times += 1

    def __exit__(self, *_):
        time.sleep(0.05)
        self.inside.release()


def example():
    zk = client()
    zk.ensure_path(at("/example"))
    zk.create(at("/test"), b"data", ephemeral=False, makepath=True)
    assert zk.get(at("/test"))[0] == b"data"
    zk.set(at("/test"), b"more data")
    data, stat = zk.get(at("/test"))
    assert (data, stat.version) == (b"more data", 1)
    zk.stop()


def lock():
    alone = Alone()

    def work(number, zk):
        for _ in range(ROUNDS):
            with zk.Lock(at("/lock"), str(number)):
                with alone:
                    pass

    at_once(work)
    assert alone.times == WORKERS * ROUNDS


def election():
    alone = Alone()

    def lead():
        with alone:
            pass

    def work(number, zk):
        for _ in range(ROUNDS // 2):
            zk.Election(at("/election"), str(number)).run(lead)

    at_once(work)
    assert alone.times == WORKERS * (ROUNDS // 2)


def barrier():
    zk = client()
    lifted = threading.Event()
    waiting = threading.Barrier(WORKERS)
    zk.retry(zk.Barrier(at("/barrier")).create)

    def work(number, waiter):
        gate = waiter.Barrier(at("/barrier"))
        waiting.wait(PATIENCE)
        if number == 0:
            time.sleep(0.3)
            lifted.set()
            zk.retry(zk.Barrier(at("/barrier")).remove)
        until("the lifted barrier", lambda: passes(gate))
        assert lifted.is_set(), "somebody passed the barrier before it was lifted"

    def passes(gate):
        try:
            # With a limit: kazoo drops a watch when the connection breaks, and would wait for ever.
            return gate.wait(1)
        except LOST:
            return False

    at_once(work)
    zk.stop()


def counter():
    lost = []

    def work(number, zk):
        zk_counter = zk.Counter(at("/counter"))
        for _ in range(ROUNDS):
            try:
                zk_counter += 1
            except LOST:
                lost.append(number)

    zk = client()
    at_once(work)
    # kazoo repeats an addition whose answer was lost, so there may be more, but never fewer.
    value = zk.retry(lambda: zk.Counter(at("/counter")).value)
    assert value >= WORKERS * ROUNDS - len(lost), f"additions are missing: {value}"
    zk.stop()


def queue():
    zk = client()
    sent, unclear = [], []
    for number in range(WORKERS * ROUNDS):
        entry = str(number).encode()
        try:
            zk.LockingQueue(at("/queue")).put(entry)
            sent.append(entry)
        except LOST:
            unclear.append(entry)
    received, maybe = [], []

    def done():
        return set(sent) <= set(received) | set(maybe)

    def take(entries):
        while not done():
            entry = entries.get(timeout=1)
            if entry is None:
                continue
            try:
                if entries.consume():
                    received.append(entry)
            except LOST:
                maybe.append(entry)
                raise

    def work(number, _):
        while not done():
            # A new session after each break: what the old one had locked is free again when that one is closed.
            consumer = client()
            try:
                take(consumer.LockingQueue(at("/queue")))
            except LOST:
                pass
            finally:
                consumer.stop()

    at_once(work, 2)
    assert set(received) <= set(sent) | set(unclear)
    zk.stop()


def party():
    joined = threading.Barrier(WORKERS)
    left = threading.Barrier(WORKERS)

    def work(number, zk):
        members = zk.Party(at("/party"), str(number))
        members.join()
        joined.wait(PATIENCE)
        until("everybody in the party", lambda: sorted(set(members)) == [str(n) for n in range(WORKERS)])
        left.wait(PATIENCE)
        members.leave()
        until("an empty party", lambda: len(members) == 0)

    at_once(work)


def data_watch():
    zk, writer = client(), client()
    writer.retry(writer.ensure_path, at("/watched"))
    writer.retry(writer.set, at("/watched"), b"0")
    seen = []

    @zk.DataWatch(at("/watched"))
    def changed(data, stat):
        if data is not None:
            seen.append(int(data))

    last = WORKERS * ROUNDS
    for number in range(1, last + 1):
        writer.retry(writer.set, at("/watched"), str(number).encode())
        time.sleep(0.02)
    until("the last value", lambda: seen and seen[-1] == last)
    assert seen == sorted(seen), f"values go back: {seen}"
    zk.stop()
    writer.stop()


def children_watch():
    zk, writer = client(), client()
    writer.retry(writer.ensure_path, at("/parent"))
    seen = []

    @zk.ChildrenWatch(at("/parent"))
    def changed(children):
        seen.append(set(children))

    expected = set()
    for number in range(WORKERS * ROUNDS):
        name = f"c{number:03}"
        writer.retry(writer.ensure_path, at(f"/parent/{name}"))
        expected.add(name)
        time.sleep(0.02)
    until("all children", lambda: seen and seen[-1] == expected)
    zk.stop()
    writer.stop()


enough = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), enough.set()), daemon=True).start()
turn = 0
while turn == 0 or not enough.is_set():
    try:
        globals()[NAME]()
    except (AssertionError, KazooException) as failure:
        sys.exit(f"{NAME}, turn {turn}: {failure!r}")
    turn += 1
print(turn)
