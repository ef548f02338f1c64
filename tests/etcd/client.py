"""Drives a cluster of three with aetcd, and with the JSON gateway, while its leader is killed.

`bellwether-parity with-cluster` starts this with ENDPOINTS set, and does what is asked for
on standard output: "kill the leader" is answered with a line that ends in the endpoint that
is gone, "start it again" brings it back.

A client of aetcd speaks to one node; after the kill another one is asked. What aetcd has no
calls for, elections and the lock service, goes through the gateway.
"""

import asyncio
import base64
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request

import aetcd

PATIENCE_SECONDS = 30
CALL_SECONDS = 5
PAUSE_SECONDS = 0.1
# Longer than everything takes: only leases that survive are still there.
TTL_SECONDS = 120
WRITES = 20


def passed(what):
    print(f"ok      {what}, with the Python client", flush=True)


def ask(what):
    """Says what the harness is to do, and returns its answer when it is done."""
    print(what, flush=True)
    answer = input()
    assert answer, f"nobody did it: {what}"
    return answer


async def retry(what, call):
    """Calls until it succeeds: only for what may be done twice."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await asyncio.wait_for(call(), CALL_SECONDS)
        except (aetcd.ClientError, OSError, asyncio.TimeoutError) as error:
            if time.monotonic() > end:
                raise AssertionError(f"{what}: {error!r}") from error
        await asyncio.sleep(PAUSE_SECONDS)


def connect(endpoint):
    url = urllib.parse.urlsplit(endpoint)
    return aetcd.Client(url.hostname, url.port, timeout=CALL_SECONDS)


def coded(text):
    return base64.b64encode(text.encode()).decode()


async def gateway(endpoint, path, **fields):
    """One call of the JSON gateway, whose reply may be an error."""
    body = json.dumps(fields).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(endpoint + path, body, headers)

    def send():
        with urllib.request.urlopen(request, timeout=CALL_SECONDS) as reply:
            return json.load(reply)

    return await asyncio.to_thread(send)


async def keys(client):
    for number in range(3):
        await client.put(b"k/%d" % number, b"value")
    found = await client.get_prefix(b"k/")
    assert [kv.key for kv in found] == [b"k/0", b"k/1", b"k/2"], found
    assert await client.get(b"nobody") is None
    await client.delete(b"k/2")
    assert len(list(await client.get_prefix(b"k/"))) == 2
    passed("put, get and delete")


async def transactions(client):
    on = client.transactions
    for value, expected in [(b"value", True), (b"value", False)]:
        succeeded, _ = await client.transaction(
            compare=[on.value(b"k/0") == value, on.version(b"k/0") > 0],
            success=[on.put(b"k/0", b"swapped")],
            failure=[on.get(b"k/0")],
        )
        assert succeeded is expected, (value, succeeded)
    passed("transactions")


async def a_lease(client):
    lease = await client.lease(TTL_SECONDS)
    await client.put(b"leased", b"value", lease=lease)
    kept = await lease.refresh()
    assert kept.TTL == TTL_SECONDS, kept
    assert list(await lease.keys()) == [b"leased"]
    passed("a lease is granted and kept alive")
    return lease


async def an_election(endpoint, lease):
    name = coded("python-election")
    fields = {"name": name, "lease": str(lease.id), "value": coded("first")}
    won = await gateway(endpoint, "/v3/election/campaign", **fields)
    seen = await gateway(endpoint, "/v3/election/leader", name=name)
    assert seen["kv"]["value"] == coded("first"), seen
    passed("an election is won through the gateway")
    return won["leader"]


async def a_lock(endpoint, lease):
    fields = {"name": coded("python-lock"), "lease": str(lease.id)}
    locked = await gateway(endpoint, "/v3/lock/lock", **fields)
    passed("a lock is held through the gateway")
    return locked["key"]


async def watched(client, newest):
    """All changes since the beginning of the writes, once and in order."""
    last, told = 0, set()
    watch = await client.watch_prefix(b"w/", start_revision=1)
    async for event in watch:
        assert event.kv.mod_revision > last, (event, last)
        last = event.kv.mod_revision
        told.add(event.kv.key)
        if last >= newest:
            break
    await watch.cancel()
    assert len(told) == WRITES, told
    passed("a watch tells every change once and in order")


async def writes(client):
    for number in range(WRITES):
        await retry("a put", lambda: client.put(b"w/%02d" % number, b"value"))
    found = await retry("a get", lambda: client.get_prefix(b"w/"))
    return max(kv.mod_revision for kv in found)


async def elected(endpoint, leader):
    """The winner leads as before, proclaims and resigns."""
    name = leader["name"]
    seen = await retry("who leads", lambda: gateway(endpoint, "/v3/election/leader", name=name))
    assert seen["kv"]["value"] == coded("first"), seen
    proclaim = {"leader": leader, "value": coded("second")}
    await retry("a proclamation", lambda: gateway(endpoint, "/v3/election/proclaim", **proclaim))
    seen = await retry("who leads", lambda: gateway(endpoint, "/v3/election/leader", name=name))
    assert seen["kv"]["value"] == coded("second"), seen
    await retry("a resignation", lambda: gateway(endpoint, "/v3/election/resign", leader=leader))
    try:
        seen = await gateway(endpoint, "/v3/election/leader", name=name)
        raise AssertionError(f"somebody leads: {seen}")
    except urllib.error.HTTPError as error:
        assert "election: no leader" in error.read().decode()
    passed("the election's winner leads, proclaims and resigns")


async def check_after(client, endpoint, lease_id, lock_key, leader, mutex):
    newest = await writes(client)
    passed("writes go on when the leader is killed")
    found = await retry("a get", lambda: client.get(b"k/0"))
    assert found.value == b"swapped", found
    passed("no acknowledged write is lost")
    await asyncio.wait_for(watched(client, newest), PATIENCE_SECONDS)
    left = await retry("a lease's time to live", lambda: client.get_lease_info(lease_id))
    assert left.TTL > 0 and b"leased" in list(left.keys), left
    passed("the lease and its keys are there")
    assert await client.get(base64.b64decode(lock_key)) is not None
    await retry("an unlock", lambda: gateway(endpoint, "/v3/lock/unlock", key=lock_key))
    passed("the lock is held, then free")
    other = client.lock(b"mutex", ttl=TTL_SECONDS)
    assert not await other.acquire(timeout=0), "two hold the lock"
    mutex._client = client
    assert await mutex.release() and await other.acquire(timeout=PATIENCE_SECONDS)
    passed("the client's own lock is held, then goes to who waits for it")
    await elected(endpoint, leader)


async def main():
    endpoints = os.environ["ENDPOINTS"].split(",")
    client = connect(endpoints[0])
    await client.delete_prefix(b"w/")
    await keys(client)
    await transactions(client)
    lease = await a_lease(client)
    leader = await an_election(endpoints[1], lease)
    lock_key = await a_lock(endpoints[2], lease)
    mutex = client.lock(b"mutex", ttl=TTL_SECONDS)
    assert await mutex.acquire()
    passed("the client's own lock is held")

    gone = ask("kill the leader").split()[-1]
    await client.close()
    alive = [endpoint for endpoint in endpoints if endpoint != gone]
    client = connect(alive[0])
    await check_after(client, alive[1], lease.id, lock_key, leader, mutex)
    ask("start it again")
    back = connect(gone)
    found = await retry("a get from who came back", lambda: back.get(b"w/00"))
    assert found.value == b"value", found
    passed("the leader came back")
    await back.close()
    await client.close()


asyncio.run(main())
