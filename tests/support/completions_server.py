"""A small server that speaks the completions protocol, with a real model behind it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from tiny_models import BASE
from transformers import AutoModelForCausalLM, AutoTokenizer

from raymia.models.whole_weights import load_whole

MODEL = "tiny"
SECRET = "sk-never-to-be-seen-0123456789"
KNOWN = {"model", "prompt", "echo", "logprobs", "temperature", "max_tokens"}


@dataclass
class Manners:
    """How the server behaves; tests change it while it runs.

    Attributes
    ----------
    style : "vllm" names tokens by ids when asked to; "strict" refuses keys it does not know;
        "writes" wants to write at least a token.
    key : what it wants to be authorized with; None wants nothing.
    failures : statuses of the next completions, before it answers again.
    retry_after : header of those failures.
    answers_left : completions until it drops every connection; None never does.
    longest : tokens of the longest text that it takes.
    wrong : what is wrong with its completions: "html", "no_logprobs", "no_echo", "other_model", and
        "own_template", which puts tokens before those of a prompt; "words", by which it names
        tokens that it writes; "nothing", which it writes.
    has_models_page : whether there is a /models.
    taste : how it draws tokens where a request does not say it, as a model's
        `generation_config.json` may say.
    most_written : tokens of a completion, whatever is asked for.
    last : the body of the last request.
    """

    style: str = "vllm"
    key: str | None = None
    failures: list[int] = field(default_factory=list)
    retry_after: str | None = None
    answers_left: int | None = None
    longest: int = 256
    wrong: str | None = None
    has_models_page: bool = True
    root: str = "/models/tiny"
    asked: Counter = field(default_factory=Counter)
    at_once: int = 0
    max_at_once: int = 0
    taste: dict = field(default_factory=dict)
    most_written: int | None = None
    last: dict = field(default_factory=dict)


class _Model:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = load_whole(AutoModelForCausalLM, folder, dtype=torch.float32).eval()

    def encode(self, text):
        return self.tokenizer(text)["input_ids"]

    @torch.no_grad()
    def written(self, ids, body):
        """New tokens, the one that ends the text included, and their log-probabilities."""
        draws, log_probs = torch.Generator().manual_seed(body["seed"]), []
        ids, start, ends = [*ids], len(ids), {*body["stop_token_ids"]}
        while len(log_probs) < body["max_tokens"] and not ends & {*ids[start:]}:
            logits = self.model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            log_p = torch.log_softmax(logits, dim=-1)
            top_k = body.get("top_k", -1)
            among = logits.topk(top_k if top_k > 0 else len(logits)).indices
            chosen = among[0]
            if body["temperature"]:
                p = torch.softmax(logits[among] / body["temperature"], -1)
                chosen = among[torch.multinomial(p, 1, generator=draws)[0]]
            ids.append(int(chosen))
            log_probs.append(float(log_p[chosen]))
        return ids[start:], log_probs

    @torch.no_grad()
    def logprobs(self, ids, name):
        """The `logprobs` object of a completion that repeats the given tokens."""
        logits = self.model(input_ids=torch.tensor([ids])).logits[0].float()
        log_p = torch.log_softmax(logits, dim=-1)
        best = log_p.argmax(-1).tolist()
        tops = [None]
        values = [None]
        for position, label in enumerate(ids[1:]):
            tops.append({name(best[position]): float(log_p[position, best[position]])})
            values.append(float(log_p[position, label]))
        return {"tokens": [name(i) for i in ids], "token_logprobs": values, "top_logprobs": tops}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Print no line for each request."""

    def _send(self, status, content, kind="application/json", **headers):
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def _refused(self):
        key = self.server.manners.key
        given = self.headers.get("Authorization")
        if key is None or given == f"Bearer {key}":
            return False
        self._send(401, {"error": {"message": f"wrong key: {given}"}})
        return True

    def do_GET(self):
        manners = self.server.manners
        if manners.answers_left == 0:
            self.close_connection = True
            return None
        if self._refused():
            return None
        if not manners.has_models_page:
            return self._send(404, {"error": "no such page"})
        # As vLLM's, the time of creation is new with every request.
        manners.asked["/models"] += 1
        entry = {"id": MODEL, "root": manners.root, "created": sum(manners.asked.values())}
        return self._send(200, {"object": "list", "data": [entry]})

    def do_POST(self):
        manners = self.server.manners
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            manners.asked[str(body["prompt"])] += 1
            manners.at_once += 1
            manners.max_at_once = max(manners.max_at_once, manners.at_once)
        try:
            self._complete(manners, body)
        finally:
            with self.server.lock:
                manners.at_once -= 1

    def _complete(self, manners, body):
        with self.server.lock:
            failure = manners.failures.pop(0) if manners.failures else None
            if manners.answers_left == 0:
                self.close_connection = True
                return None
            if manners.answers_left is not None:
                manners.answers_left -= 1
        if failure is not None:
            given = self.headers.get("Authorization")
            more = {} if manners.retry_after is None else {"Retry-After": manners.retry_after}
            return self._send(failure, {"error": f"you came with {given}"}, **more)
        if self._refused():
            return None
        if manners.wrong == "html":
            return self._send(200, "<html>Welcome to nginx</html>", kind="text/html")
        unknown = sorted(set(body) - KNOWN)
        if manners.style != "vllm" and unknown:
            return self._send(400, {"error": f"unknown argument: {unknown[0]}"})
        if manners.style == "writes" and body["max_tokens"] < 1:
            return self._send(400, {"error": "max_tokens must be at least 1"})
        return self._send(200, *self._answer(manners, body)) if self._fits(manners, body) else None

    def _fits(self, manners, body):
        count = len(self._ids(body["prompt"]))
        if count > manners.longest:
            self._send(400, {"error": f"maximum context length is {manners.longest}"})
        return count <= manners.longest

    def _ids(self, prompt):
        return prompt if isinstance(prompt, list) else self.server.model.encode(prompt)

    def _answer(self, manners, body):
        model = self.server.model
        ids = self._ids(body["prompt"])
        if not body.get("echo"):
            asked, manners.last = {**manners.taste, **body}, body
            most = min(body["max_tokens"], manners.most_written or body["max_tokens"])
            asked["max_tokens"] = most
            new, log_probs = ([], []) if manners.wrong == "nothing" else model.written(ids, asked)
            is_cut = len(new) == most and not {*body["stop_token_ids"]} & {*new}
            name = "word {}" if manners.wrong == "words" else "token_id:{}"
            logprobs = {"tokens": [name.format(one) for one in new], "token_logprobs": log_probs}
            choice = {
                "logprobs": None if manners.wrong == "no_logprobs" else logprobs,
                "finish_reason": "length" if is_cut else "stop",
            }
            name = "another" if manners.wrong == "other_model" else body["model"]
            return [{"model": name, "choices": [choice]}]
        if manners.wrong == "own_template":
            ids = [7, 8, *ids]
        prompt_tokens = len(ids)
        if body["max_tokens"] > 0:
            ids = [*ids, 5]  # what it writes is not the prompt's
        if manners.wrong == "no_echo":
            ids = ids[-1:]
        as_ids = body.get("return_tokens_as_token_ids")
        name = "token_id:{}".format if as_ids else lambda i: model.tokenizer.decode([i])
        with self.server.lock:
            logprobs = model.logprobs(ids, name)
        choice = {"text": body["prompt"], "logprobs": logprobs}
        if manners.wrong == "no_logprobs":
            choice["logprobs"] = None
        name = "another" if manners.wrong == "other_model" else body["model"]
        return [{"model": name, "choices": [choice], "usage": {"prompt_tokens": prompt_tokens}}]


@contextmanager
def completions_server(folder=BASE, **manners):
    """Serve a model; yields the base URL and the manners, which may be changed on the way."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.manners, server.model, server.lock = Manners(**manners), _Model(folder), threading.Lock()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", server.manners
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
