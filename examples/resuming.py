"""Holds an Android phone until a line comes on stdin, over however many brokers: when its socket breaks it resumes.

Needs `pip install websockets`; LEASEHOLD_URL is ws:// or wss://, one or several with commas. It does not guard its
work: a program that must stop when no broker renews its lease runs under `leasehold run`, or does what
docs/protocol.md says under "A client that guards its work".
"""
import json, os, sys, threading, time, uuid
from itertools import count
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

needs, ids, instance = ["phone,os=android"], count(1), uuid.uuid4().hex
urls = os.environ.get("LEASEHOLD_URL", "ws://127.0.0.1:5327").split(",")
ws = session = None


def reach():
    """A socket to the broker that leads. Those that stand by send there, which the library follows (from 17.1)."""
    for url in urls * 100:
        try:
            return connect(f"{url.strip(' /')}/v1/ws", subprotocols=["leasehold.v1"], open_timeout=2)
        except (OSError, WebSocketException) as error:
            why = f"{url}: {error}"
            time.sleep(0.2)
    raise SystemExit(f"no broker: {why}")


def hear(wanted):
    """The first message that is wanted; the others are news that this client has no use for."""
    while True:
        message = json.loads(ws.recv())
        if "error" in message:
            raise SystemExit(message["error"]["message"])
        if wanted(message):
            return message


def ask(method, **params):
    number = next(ids)
    ws.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
    return hear(lambda message: message.get("id") == number)["result"]


def call(method, **params):
    """Asks until it is answered, on one socket or on the next: asking twice is asking once."""
    global ws
    while True:
        try:
            if ws is None:
                ws = reach()
                if session:
                    known = {key: session[key] for key in ("session", "secret", "renewal")}
                    ask("session.resume", instance=instance, **known)
            return ask(method, **params)
        except ConnectionClosed:
            ws = None


session = call("session.open", instance=instance, needs=needs)
claim = call("lease.acquire", request_id=1, needs=needs)
while claim["state"] == "queued":
    try:
        claim = hear(lambda message: message.get("method") in ("lease.granted", "claim.ended"))["params"]
    except ConnectionClosed:
        claim = call("lease.acquire", request_id=1, needs=needs)
if claim["state"] == "ended":
    raise SystemExit(claim["end"]["message"])
lease = claim["lease"]
print(lease["resources"]["phone"][0]["name"], lease["fence"], flush=True)
work = threading.Thread(target=sys.stdin.readline, daemon=True)
work.start()
while work.is_alive():
    try:
        ws.recv(timeout=0.5)
    except TimeoutError:
        pass
    except ConnectionClosed:
        call("lease.list")
call("lease.release", lease=lease["lease"], outcome="passed")
call("session.close")
ws.close()
