"""Writers that keep many creates outstanding while members are killed: pipelined.py HOSTS WRITERS.

Until standard input is closed, each creates znodes of its own under /pipelined, never one name twice. Then every
member of HOSTS is asked whether each acknowledged one is there, with the zxid that was acknowledged, in order.
"""
import collections
import logging
import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionClosedError, ConnectionLoss, OperationTimeoutError, SessionExpiredError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.retry import KazooRetry

HOSTS, WRITERS = sys.argv[1], int(sys.argv[2])
LOST = (ConnectionClosedError, ConnectionLoss, OperationTimeoutError, SessionExpiredError, KazooTimeoutError)
OUTSTANDING = 32
logging.basicConfig(level=logging.CRITICAL)
enough = threading.Event()
acknowledged = [[] for _ in range(WRITERS)]
failures = []


def client(hosts):
    retry = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.2)
    zk = KazooClient(hosts=hosts, timeout=10, connection_retry=retry, command_retry=retry.copy())
    zk.start(timeout=120)
    return zk


def settle(writer, name, result):
    try:
        path, stat = result.get(timeout=60)
        assert path == name, f"{path} instead of {name}"
        acknowledged[writer].append((name, stat.czxid))
        return True
    except LOST:
        return False  # It may be there or not.


def write(writer):
    zk = client(HOSTS)
    waiting = collections.deque()
    number = 0
    while not enough.is_set() or waiting:
        while len(waiting) < OUTSTANDING and not enough.is_set():
            name = f"/pipelined/{writer}-{number:07}"
            waiting.append((name, zk.create_async(name, name.encode(), include_data=True)))
            number += 1
        if not settle(writer, *waiting.popleft()):
            while waiting:  # What was sent behind it before the break settles now as well.
                settle(writer, *waiting.popleft())
            zk.retry(zk.exists, "/pipelined")
    zk.stop()


def guarded(writer):
    try:
        write(writer)
    except BaseException as failure:
        failures.append(f"writer {writer}: {failure!r}")


def check(host):
    zk = client(host)
    zk.retry(zk.sync, "/pipelined")
    there = set(zk.retry(zk.get_children, "/pipelined"))
    for writer in range(WRITERS):
        previous = 0
        for name, zxid in acknowledged[writer]:
            assert zxid > previous, f"{name}: acknowledged with zxid {zxid:#x} after {previous:#x}"
            previous = zxid
            assert name.rsplit("/", 1)[1] in there, f"{host} has lost {name}"
    # Each stat is a round trip: a sample spread over the whole run, and the newest.
    for writer in range(WRITERS):
        acks = acknowledged[writer]
        for name, zxid in acks[:: max(1, len(acks) // 500)] + acks[-200:]:
            data, stat = zk.retry(zk.get, name)
            assert (data, stat.czxid, stat.version) == (name.encode(), zxid, 0), f"{host}: {name}: {data} {stat}"
    zk.stop()


zk = client(HOSTS)
zk.retry(zk.ensure_path, "/pipelined")  # Members are killed already.
zk.stop()
threads = [threading.Thread(target=guarded, args=(writer,), daemon=True) for writer in range(WRITERS)]
for thread in threads:
    thread.start()
sys.stdin.read()
enough.set()
for thread in threads:
    thread.join(120)
    assert not thread.is_alive(), "a writer hangs"
if failures:
    sys.exit("\n".join(failures))
for host in HOSTS.split(","):
    check(host)
print(sum(map(len, acknowledged)))
