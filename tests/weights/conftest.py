"""A hub on this machine, as the hub's client speaks to it."""

import hashlib
import http.server
import json
import threading

import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub import constants


class Hub(http.server.ThreadingHTTPServer):
    """`files` holds contents by path, `requests` what was asked for; the next `spoiled` contents have one
    wrong bit, the next `cut` end in the middle."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.requests, self.spoiled, self.cut = {}, [], 0, 0

    def publish(self, repository, tensors, **config):
        pretrained = {"mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 1000, "input_size": [3, 224, 224]}
        config = {"architecture": "any", "pretrained_cfg": pretrained | config}
        self.files[f"/{repository}/resolve/main/config.json"] = json.dumps(config).encode()
        content = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
        self.files[f"/{repository}/resolve/main/model.safetensors"] = content


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self):
        content = self.head()
        if not self.path.endswith("json"):
            if self.server.spoiled and content:
                self.server.spoiled -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
            if self.server.cut and content:
                self.server.cut -= 1
                content = content[: len(content) // 2]
        self.wfile.write(content)

    def do_HEAD(self):
        self.head()

    def head(self):
        content = self.server.files.get(self.path)
        self.server.requests.append((self.command, self.path))
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
            content = b""
        self.send_header("X-Repo-Commit", "0" * 40)
        digest = hashlib.sha256(content).hexdigest()
        self.send_header("ETag" if self.path.endswith("json") else "X-Linked-ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        yield hub
        hub.shutdown()
