"""Many Paho sessions that send themselves running numbers in QoS 1 until SIGTERM; the same as steady.mjs.

    steady.py --url wss://127.0.0.1:8443/mqtt --ca ca.pem --sessions 100
"""

import argparse
import json
import random
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

PERIOD = 0.2  # seconds
LAST_ANSWERS = 10
DEADLINE = 60

parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True)
parser.add_argument("--ca", required=True)
parser.add_argument("--sessions", type=int, default=100)
given = parser.parse_args()
RUN = secrets.token_hex(4)
URL = urlsplit(given.url)
stopping = threading.Event()


class Session:
    def __init__(self, index):
        self.topic = f"steady/{RUN}/{index}"
        self.sent, self.heard, self.dropped = 0, Counter(), False
        self.first = threading.Event()
        version = mqtt.MQTTv5 if index % 2 else mqtt.MQTTv311
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"steady-py-{RUN}-{index}",
            transport="websockets",
            protocol=version,
            reconnect_on_failure=False,
        )
        self.mqtt.ws_set_options(path=URL.path)
        self.mqtt.tls_set(ca_certs=given.ca)
        self.mqtt.on_connect = lambda *_: self.mqtt.subscribe(self.topic, 1)
        self.mqtt.on_subscribe = lambda *_: self.send()
        self.mqtt.on_message = self.hear
        self.mqtt.on_disconnect = self.ended
        self.mqtt.connect(URL.hostname, URL.port, keepalive=60)
        self.mqtt.loop_start()

    def hear(self, _client, _userdata, message):
        self.heard[int(message.payload)] += 1
        self.first.set()

    def ended(self, *_):
        if not stopping.is_set():
            self.dropped = True
            print(f"{self.topic} was dropped", file=sys.stderr, flush=True)

    def send(self):
        self.sent += 1
        self.mqtt.publish(self.topic, str(self.sent), qos=1)


signal.signal(signal.SIGTERM, lambda *_: stopping.set())
sessions = [Session(index) for index in range(given.sessions)]
for session in sessions:
    if not session.first.wait(DEADLINE):
        state = "connected" if session.mqtt.is_connected() else "not connected"
        sys.exit(f"{session.topic} did not hear its first number: sent {session.sent}, {state}")
print("ready", file=sys.stderr, flush=True)
while not stopping.is_set():
    random.choice(sessions).send()
    time.sleep(PERIOD / len(sessions))
end = time.monotonic() + LAST_ANSWERS
while any(len(one.heard) < one.sent for one in sessions) and time.monotonic() < end:
    time.sleep(0.05)
print(
    json.dumps(
        {
            "sessions": len(sessions),
            "dropped": sum(one.dropped for one in sessions),
            "sent": sum(one.sent for one in sessions),
            "lost": sum(one.sent - len(one.heard) for one in sessions),
            "doubled": sum(times - 1 for one in sessions for times in one.heard.values()),
        }
    )
)
for one in sessions:
    one.mqtt.disconnect()
    one.mqtt.loop_stop()
