"""A push gateway for the stories: takes what it is told as the Push Gateway API says, and shows it to who asks.

    POST /_matrix/push/v1/notify
    GET /told/{pushkey}   what was told to this pushkey, the oldest first

https://spec.matrix.org/v1.19/push-gateway-api/
"""

import collections
import http.server
import json
import threading
import urllib.parse

PATH = "/_matrix/push/v1/notify"


class Gateway(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.told = collections.defaultdict(list)
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != PATH:
            self.answer(404, {"errcode": "M_UNRECOGNIZED", "error": "Not a path of a gateway"})
            return
        notification = body["notification"]
        with self.server.lock:
            for device in notification["devices"]:
                self.server.told[device["pushkey"]].append(notification)
        self.answer(200, {"rejected": []})

    def do_GET(self):
        pushkey = urllib.parse.unquote(self.path.removeprefix("/told/"))
        with self.server.lock:
            told = list(self.server.told[pushkey])
        self.answer(200, told)

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass
