"""An unmodified ZooKeeper client for tests: zookeeper.py COMMAND HOSTS PATH [ARGUMENT]."""
import logging
import sys
import time

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NodeExistsError, OperationTimeoutError, SessionExpiredError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.retry import KazooRetry

logging.basicConfig(level=logging.CRITICAL)


def connect(hosts):
    """A client whose `retry` repeats what a broken connection has cut off, as the servers may change at any time."""
    connection = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5)
    command = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5, deadline=60)
    client = KazooClient(hosts=hosts, timeout=10, connection_retry=connection, command_retry=command)
    client.start(timeout=60)
    return client


def put(client, path, data):
    client.retry(client.ensure_path, path)
    print(client.retry(client.set, path, data.encode()).mzxid)


def get(client, path):
    client.retry(client.sync, path)
    print(client.retry(client.get, path)[0].decode())


def write(client, path, count):
    """Creates numbered znodes one after the other and says which are acknowledged, until it is told to end."""
    client.retry(client.ensure_path, path)
    for number in range(int(count)):
        if number % 20 == 0 and client.retry(client.exists, f"{path}-end"):
            return
        name = f"{path}/n{number:06}"
        while True:
            try:
                # No retry by the client library: what is printed was acknowledged, once.
                client.create_async(name, str(number).encode()).get(timeout=30)
                print(name, flush=True)
                break
            except NodeExistsError:
                break  # Written by a try whose answer was lost.
            except (ConnectionLoss, SessionExpiredError, KazooTimeoutError, OperationTimeoutError):
                time.sleep(0.05)


def children(client, path):
    client.retry(client.sync, path)
    print("\n".join(f"{path}/{name}" for name in sorted(client.retry(client.get_children, path))))


command, hosts, *arguments = sys.argv[1:]
client = connect(hosts)
{"put": put, "get": get, "write": write, "children": children}[command](client, *arguments)
client.stop()
