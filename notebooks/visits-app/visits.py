"""Counts visits into a file. ``/`` counts one; ``/?work=5000`` computes as well, so that there is something to see in a plot."""

import hashlib
import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

FILE = Path(os.environ.get("VISITS_FILE", "/data/visits.txt"))
PORT = int(os.environ.get("VISITS_PORT", "8080"))
LOCK = threading.Lock()


def count() -> int:
    with LOCK:
        visits = int(FILE.read_text()) + 1 if FILE.exists() else 1
        FILE.write_text(str(visits))
    return visits


class Visits(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        digest = b""
        for _ in range(min(int(query.get("work", ["0"])[0]), 1_000_000)):
            digest = hashlib.sha256(digest).digest()
        body = json.dumps({"visits": count(), "host": socket.gethostname()}).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *values: object) -> None:
        print(self.client_address[0], form % values, flush=True)


if __name__ == "__main__":
    print(f"visits listens on port {PORT}, counts into {FILE}", flush=True)
    ThreadingHTTPServer(("", PORT), Visits).serve_forever()
