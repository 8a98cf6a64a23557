"""The server's half of the two-way example: a program that reaches the broker over plain TCP, without the gateway.

    server_side.py watch --port 1883          one JSON line per message the server may see, after {"ready": true}
    server_side.py send  --port 1883 'hello'  publish.single with QoS 2 to /p/client/download
"""

import argparse
import json
import sys

import paho.mqtt.client as mqtt
import paho.mqtt.publish as publish

USER = {"username": "server", "password": "123456"}


def watch(port: int) -> None:
    def on_connect(client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            sys.exit(f"refused: {reason}")
        client.subscribe([("/p/client/upload", 1), ("/p/client/download", 1)])

    def on_subscribe(_client, _userdata, _mid, _reasons, _properties):
        print(json.dumps({"ready": True}), flush=True)

    def on_message(_client, _userdata, message):
        print(json.dumps({"topic": message.topic, "payload": message.payload.decode()}), flush=True)

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.username_pw_set(**USER)
    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    client.connect("127.0.0.1", port)
    client.loop_forever(retry_first_connection=False)


def send(port: int, text: str) -> None:
    publish.single("/p/client/download", text, qos=2, hostname="127.0.0.1", port=port, auth=USER)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["watch", "send"])
    parser.add_argument("text", nargs="?", default="hello mqtt")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    if given.role == "watch":
        watch(given.port)
    else:
        send(given.port, given.text)
