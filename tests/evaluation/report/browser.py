"""A headless Chromium to look at reports with."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

Scheme = Literal["light", "dark"]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Browser:
    """One window; pages are opened in it one after the other."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, width: int, scheme: Scheme, height: int = 900) -> None:
        """Show a file in a window of that width."""
        self._command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get(page.resolve().as_uri())

    def media(self, name: Literal["print", "screen", ""]) -> None:
        """Show the open page as it would be printed, or with the empty name as it was."""
        self._command("Emulation.setEmulatedMedia", media=name)

    def run(self, script: str) -> Any:
        """What a JavaScript function's body returns."""
        return self.driver.execute_script(script)

    def log(self) -> list[str]:
        """All that the browser has had to say since it was last asked."""
        return [json.dumps(entry) for entry in self.driver.get_log("browser")]

    def photograph(self, path: Path, most: int = 16_000) -> None:
        """Write a PNG of the whole page."""
        width, height = self.run("return [window.innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, most), "scale": 1}
        found = self._command("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def print(self, path: Path) -> None:
        """Write a PDF as the printer would get it."""
        found = self._command("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """Start Chromium with a new profile folder; skips the test, with the reason, where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    binary, driver = next(filter(None, map(shutil.which, _NAMES)), None), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip(f"no {'Chromium' if binary is None else 'chromedriver'} on the PATH")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    running = selenium.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(running)
    finally:
        running.quit()
