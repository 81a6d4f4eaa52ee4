"""A headless Chromium, driven through its pipe for developers: what a page shows, asks for and complains about."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONGEST = 120  # seconds that one answer may take on a busy machine


class Browser:
    """One page of a running browser. Events that came so far are kept."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = commands, answers
        self.number, self.rest, self.session = 0, b"", ""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser for something and wait for its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(
            self.commands, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0"
        )
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            if (message := self._next(until)).get("id") == self.number:
                assert "error" not in message, f"{method}: {message.get('error')}"
                return message["result"]
            self.events.append(message)
        raise TimeoutError(method)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.answers], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise TimeoutError("the browser does not answer")
            part = os.read(self.answers, 2**16)
            assert part, "the browser has ended"
            self.rest += part
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def open(self, page: Path, width: int, dark: bool) -> None:
        """Load a file at a width, in light or dark colours, and wait until all of it is there."""
        self.events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=page.resolve().as_uri())
        until = time.monotonic() + LONGEST
        while self.value("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < until, "the page does not load"
            time.sleep(0.05)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def named(self, *methods: str) -> list[dict[str, Any]]:
        """Parameters of the events of these names since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def photograph(self, to: Path, whole: bool = True) -> None:
        """Save what the page looks like as PNG."""
        content = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        to.write_bytes(base64.b64decode(content))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with one empty page. It has a profile of its own, and ends with the block."""
    assert CHROMIUM, "no chromium here"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--disable-background-networking", f"--user-data-dir={profile}", "--remote-debugging-pipe"]

        def placed() -> None:  # the browser reads commands from 3 and writes answers to 4
            high = [os.dup2(end, place, inheritable=False) for end, place in ((theirs_in, 60), (theirs_out, 61))]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([CHROMIUM, *options, "about:blank"], close_fds=False, preexec_fn=placed, **quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        page = Browser(ours_out, ours_in)
        try:
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
        finally:
            process.kill()
            process.wait()
            os.close(ours_in)
            os.close(ours_out)
