"""Holds an Android phone while it works. Needs `pip install websockets`; LEASEHOLD_URL is ws:// or wss://, one or several."""
import json, os, time, uuid
from itertools import count
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

needs, ids = ["phone,os=android"], count(1)
urls = os.environ.get("LEASEHOLD_URL", "ws://127.0.0.1:5327").split(",")

def reach():
    """A socket to the broker that leads. Those that stand by send there, which the library follows (from 17.1)."""
    for url in urls * 30:
        try:
            return connect(f"{url.strip(' /')}/v1/ws", subprotocols=["leasehold.v1"], open_timeout=5)
        except (OSError, WebSocketException) as error:
            why = f"{url}: {error}"
            time.sleep(0.3)
    raise SystemExit(f"no broker: {why}")

with reach() as ws:

    def hear(wanted):
        """The first message that is wanted; the others are news that this client has no use for."""
        for message in map(json.loads, ws):
            if "error" in message:
                raise SystemExit(message["error"]["message"])
            if wanted(message):
                return message
        raise SystemExit("the broker is gone")

    def call(method, **params):
        number = next(ids)
        ws.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        return hear(lambda message: message.get("id") == number)["result"]

    call("session.open", instance=uuid.uuid4().hex, needs=needs)
    claim = call("lease.acquire", request_id=1, needs=needs)
    while claim["state"] == "queued":
        claim = hear(lambda message: message["method"] in ("lease.granted", "claim.ended"))["params"]
    if claim["state"] == "ended":
        raise SystemExit(claim["end"]["message"])
    lease = claim["lease"]
    print(lease["resources"]["phone"][0]["name"], lease["fence"])
    call("lease.release", lease=lease["lease"], outcome="passed")
    call("session.close")
