"""Paho Python 2 over WebSocket, TLS and all, in 3.1.1 and 5.

    paho_python.py --url wss://127.0.0.1:8443/mqtt --ca ca.pem
    paho_python.py --url mqtt://127.0.0.1:1883 --direct

One JSON line per case, {"case": …, "result": …}, the same through the gateway and directly at the broker.
"""

import argparse
import hashlib
import itertools
import json
import queue
import secrets
import socket
import ssl
import sys
import traceback
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DEADLINE = 30  # seconds for each single wait
MEGABYTE = 1024 * 1024
NAMES = {mqtt.MQTTv311: "3.1.1", mqtt.MQTTv5: "5"}

parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True)
parser.add_argument("--ca")
parser.add_argument("--insecure", action="store_true")
parser.add_argument("--direct", action="store_true", help="the URL is the broker itself: any scheme")
parser.add_argument("--versions", default="4,5")
parser.add_argument("--max-qos", type=int, default=2)
parser.add_argument("--binary", type=int, default=MEGABYTE)
given = parser.parse_args()
if not given.direct and not given.url.startswith("wss://"):
    parser.error("the gateway is reached by wss:// only; --direct allows every scheme")

RUN = secrets.token_hex(4)
URL = urlsplit(given.url)
numbers = itertools.count(1)


class Refused(Exception):
    """CONNACK said no."""


class Client:
    """A connected client whose waits all end at a deadline."""

    def __init__(self, version, client_id=None, clean=True, will=None, user=None):
        options = {"protocol": version, "client_id": client_id or f"py{version}-{RUN}-{next(numbers)}"}
        if version != mqtt.MQTTv5:
            options["clean_session"] = clean
        transport = "websockets" if URL.scheme in ("ws", "wss") else "tcp"
        self.mqtt = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport=transport, **options)
        if transport == "websockets":
            self.mqtt.ws_set_options(path=URL.path)
        if URL.scheme in ("wss", "mqtts"):
            self.mqtt.tls_set(ca_certs=given.ca, cert_reqs=ssl.CERT_NONE if given.insecure else ssl.CERT_REQUIRED)
            self.mqtt.tls_insecure_set(given.insecure)
        if will:
            self.mqtt.will_set(will, "cut", qos=1)
        if user:
            self.mqtt.username_pw_set(*user)
        self.inbox, self.answers, self.acknowledged = queue.Queue(), queue.Queue(), queue.Queue()
        self.mqtt.on_connect = lambda _c, _u, flags, reason, _p: self.answers.put((flags, reason))
        self.mqtt.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.acknowledged.put(reasons)
        self.mqtt.on_unsubscribe = lambda _c, _u, _mid, reasons, _p: self.acknowledged.put(reasons)
        self.mqtt.on_message = lambda _c, _u, message: self.inbox.put(message)
        properties = None
        if version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else 300
            self.mqtt.connect(URL.hostname, URL.port, keepalive=20, clean_start=clean, properties=properties)
        else:
            self.mqtt.connect(URL.hostname, URL.port, keepalive=20)
        self.mqtt.loop_start()
        flags, reason = self.answers.get(timeout=DEADLINE)
        if reason.is_failure:
            self.end()
            raise Refused(reason.value, str(reason))
        self.session_present = flags.session_present

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, qos)
        return self.acknowledged.get(timeout=DEADLINE)[0].value

    def unsubscribe(self, topic):
        self.mqtt.unsubscribe(topic)
        self.acknowledged.get(timeout=DEADLINE)

    def publish(self, topic, payload, qos=1, retain=False):
        self.mqtt.publish(topic, payload, qos, retain).wait_for_publish(DEADLINE)

    def message(self):
        return self.inbox.get(timeout=DEADLINE)

    def cut(self):
        """Ends the TCP connection under the client, without DISCONNECT and without a Close frame."""
        self.mqtt.on_disconnect = None
        sock = self.mqtt.socket()
        # `reconnect` would bring the client back at once.
        self.mqtt.reconnect_delay_set(min_delay=3600, max_delay=3600)
        sock_of(sock).shutdown(socket.SHUT_RDWR)

    def end(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def sock_of(sock):
    """The TCP or TLS socket under Paho's WebSocket wrapper."""
    return getattr(sock, "_socket", sock)


def expect(what, actual, wanted):
    if actual != wanted:
        raise AssertionError(f"{what}: got {actual!r}, wanted {wanted!r}")


def round_trip(version, base, qos):
    client = Client(version)
    granted = client.subscribe(f"{base}/echo", qos)
    client.publish(f"{base}/echo", f"hello at {qos}", qos)
    message = client.message()
    expect("message", (message.payload.decode(), message.qos), (f"hello at {qos}", min(qos, given.max_qos)))
    client.end()
    return {"granted": granted, "qos": message.qos, "payload": message.payload.decode()}


def retained(version, base):
    writer = Client(version)
    writer.publish(f"{base}/state", "on", retain=True)
    reader = Client(version)
    reader.subscribe(f"{base}/state", 1)
    message = reader.message()
    expect("message", (message.payload, message.retain), (b"on", True))
    writer.publish(f"{base}/state", b"", retain=True)
    writer.end()
    reader.end()
    return "on, retained"


def will(version, base):
    watcher = Client(version)
    watcher.subscribe(f"{base}/gone", 1)
    doomed = Client(version, will=f"{base}/gone")
    doomed.cut()
    expect("will", watcher.message().payload, b"cut")
    watcher.end()
    return "cut"


def persistent_session(version, base):
    name = f"keep{version}-{RUN}"
    before = Client(version, client_id=name, clean=False)
    before.subscribe(f"{base}/queue", 1)
    before.end()
    writer = Client(version)
    for word in ("one", "two", "three"):
        writer.publish(f"{base}/queue", word)
    writer.end()
    after = Client(version, client_id=name, clean=False)
    queued = [after.message().payload.decode() for _ in range(3)]
    expect("queued messages", queued, ["one", "two", "three"])
    after.end()
    Client(version, client_id=name, clean=True).end()
    return {"before": before.session_present, "after": after.session_present, "queued": queued}


def unsubscribe(version, base):
    client = Client(version)
    client.subscribe(f"{base}/left", 1)
    client.subscribe(f"{base}/kept/#", 1)
    client.unsubscribe(f"{base}/left")
    client.publish(f"{base}/left", "unheard")
    client.publish(f"{base}/kept/here", "sentinel")
    expect("first message", client.message().payload, b"sentinel")
    client.end()
    return "sentinel"


def binary(version, base):
    client = Client(version)
    client.subscribe(f"{base}/blob", 1)
    payload = hashlib.shake_256(b"binary").digest(given.binary)
    client.publish(f"{base}/blob", payload)
    got = client.message().payload
    expect("hash", hashlib.sha256(got).hexdigest(), hashlib.sha256(payload).hexdigest())
    client.end()
    return {"length": len(got), "sha256": hashlib.sha256(got).hexdigest()}


def wrong_password(version, _base):
    try:
        Client(version, user=("client", "not this"))
    except Refused as refusal:
        return {"code": refusal.args[0], "message": refusal.args[1]}
    raise AssertionError("a wrong password was let in")


CASES = {
    "qos 0": lambda version, base: round_trip(version, base, 0),
    "qos 1": lambda version, base: round_trip(version, base, 1),
    "qos 2": lambda version, base: round_trip(version, base, 2),
    "retained": retained,
    "will on a cut connection": will,
    "persistent session": persistent_session,
    "unsubscribe": unsubscribe,
    "binary": binary,
    "wrong password": wrong_password,
}

failed = 0
for version in map(int, given.versions.split(",")):
    for number, (name, case) in enumerate(CASES.items()):
        line = {"case": f"{NAMES[version]} {name}"}
        try:
            line["result"] = case(version, f"{RUN}/{version}/{number}")
        except Exception:  # every fault of a case is that case's result
            failed += 1
            line["result"] = "failed"
            traceback.print_exc()
        print(json.dumps(line), flush=True)
sys.exit(1 if failed else 0)
