"""Drives a headless Chromium over the pipes of its DevTools protocol, without port, socket or library,
so that it depends only on the browser."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
# The start of a browser on a busy machine of two cores takes ten seconds at worst.
TIMEOUT_S = 60.0
# The pipes that --remote-debugging-pipe has the browser read and write.
COMMANDS, ANSWERS = 3, 4


class BrowserError(Exception):
    pass


class Browser:
    """One browser with one empty page. `events` has the events that it sent."""

    def __init__(self, profile: Path) -> None:
        command_end, self._commands = os.pipe()
        self._answers, answer_end = os.pipe()
        self._buffer = b""
        self._next_id = 0
        self.events: list[dict[str, Any]] = []

        def place_pipes() -> None:
            # Clear of the two numbers first: one pipe's end may have the other's.
            command, answer = os.dup(command_end), os.dup(answer_end)
            while min(command, answer) <= ANSWERS:
                command, answer = os.dup(command), os.dup(answer)
            os.dup2(command, COMMANDS)
            os.dup2(answer, ANSWERS)

        self._process = subprocess.Popen(
            [
                str(CHROMIUM),
                "--headless=new",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "--no-first-run",
                "--disable-gpu",
                "--disable-dev-shm-usage",  # containers' /dev/shm is small
                "--disable-extensions",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND",  # no network, whatever the page asks for
                *(["--no-sandbox"] if os.geteuid() == 0 else []),  # it refuses root otherwise
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,  # Python's descriptors close themselves; the two have to stay
            preexec_fn=place_pipes,
            start_new_session=True,
        )
        os.close(command_end)
        os.close(answer_end)
        self._session: str | None = None
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._commands)
        os.close(self._answers)
        try:
            # The browser and the helpers that it started.
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Throws BrowserError with the browser's own words."""
        self._next_id += 1
        message = {"id": self._next_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._next_id:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select(
                [self._answers], [], [], max(0.0, deadline - time.monotonic())
            )
            if not ready:
                raise BrowserError(f"{what}: no answer within {TIMEOUT_S:.0f} s")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise BrowserError(f"{what}: the browser ended")
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def wait_for(self, method: str) -> None:
        """Until an event has come since `events` was last cleared."""
        deadline = time.monotonic() + TIMEOUT_S
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._receive(deadline, method))

    def open(self, page: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def show(self, width: int, height: int, scheme: str, media: str = "screen") -> None:
        """A window of `width` CSS pixels; scheme is light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; throws BrowserError where it throws."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def screenshot(self, whole: bool = True) -> bytes:
        """PNG of the whole page or of the window."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """As a person prints it; an emulated medium would stay in force."""
        self.call("Emulation.setEmulatedMedia", media="", features=[])
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def complaints(self) -> list[str]:
        """Errors and warnings on the console, uncaught exceptions and what the log says."""
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(parameters["exceptionDetails"]))
            elif event.get("method") == "Runtime.consoleAPICalled":
                if parameters["type"] in {"error", "warning", "assert"}:
                    found.append(str(parameters["args"]))
            elif event.get("method") == "Log.entryAdded":
                found.append(str(parameters["entry"]))
        return found

    def requests(self) -> list[str]:
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
