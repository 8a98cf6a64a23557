#!/usr/bin/env python3
"""Asks a site for everything a browser and a cache would, and has httplint look at each answer.

    lint_site.py --url https://127.0.0.1:8443 --ca certs/ca.pem --requests requests.json

The requests are a list of {"method", "path", "status", "headers"}. In a header's value, ETAG and LAST-MODIFIED stand for
those of the path's plain answer. One line for each note of level "warning" or "bad", then a summary in JSON.
"""

import argparse
import http.client
import json
import ssl
import time
import urllib.parse

from httplint import HttpRequestLinter, HttpResponseLinter
from httplint.note import levels


class Site:
    def __init__(self, url, ca):
        self.url = url
        address = urllib.parse.urlsplit(url)
        context = ssl.create_default_context(cafile=ca)
        self.connection = http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=20)

    def ask(self, method, path, headers):
        """Status, phrase, headers as they came, body."""
        self.connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        answer = self.connection.getresponse()
        body = answer.read()
        return answer.status, answer.reason, answer.getheaders(), body


def raw(headers):
    return [(name.encode(), value.encode()) for name, value in headers]


def lint(url, method, asked, answer):
    """All notes, those below others too."""
    status, phrase, headers, body = answer
    request = HttpRequestLinter(start_time=time.time())
    request.process_request_topline(method.encode(), url.encode(), b"1.1")
    request.process_headers(raw(asked.items()))
    request.finish_content(True)
    response = HttpResponseLinter(start_time=time.time(), no_content=method == "HEAD")
    response.request = request
    response.process_response_topline(b"1.1", str(status).encode(), phrase.encode())
    response.process_headers(raw(headers))
    response.feed_content(body)
    response.finish_content(True)
    notes = list(response.notes)
    for note in notes:
        notes.extend(note.subnotes)
    return notes


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--url", required=True)
    options.add_argument("--ca", required=True)
    options.add_argument("--requests", required=True)
    options = options.parse_args()
    site = Site(options.url, options.ca)
    summary = {"answers": 0, "good": 0, "wrong": 0}
    with open(options.requests) as file:
        requests = json.load(file)
    for asked in requests:
        method, path, headers = asked["method"], asked["path"], asked.get("headers", {})
        plain = {name.lower(): value for name, value in site.ask("GET", path, {})[2]}
        for name, value in headers.items():
            value = value.replace("ETAG", plain.get("etag", ""))
            headers[name] = value.replace("LAST-MODIFIED", plain.get("last-modified", ""))
        answer = site.ask(method, path, headers)
        shown = f"{method} {path} {headers}: {answer[0]}"
        summary["answers"] += 1
        if answer[0] != asked["status"]:
            print(f"{shown} instead of {asked['status']}")
            summary["wrong"] += 1
        for note in lint(site.url + path, method, {"Host": "localhost", **headers}, answer):
            if note.level in (levels.WARN, levels.BAD):
                print(f"{shown}: {note.level.value}: {note.summary}")
                summary["wrong"] += 1
            elif note.level == levels.GOOD:
                summary["good"] += 1
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
