"""A page in a real headless Chromium with the network cut off; what goes wrong in it is collected."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Visit:
    """An open page, its console errors and exceptions, and every request but that for the page itself."""

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def settle(self, script: str, wanted: object, seconds: float = 60.0) -> object:
        """What a script gives once it gives ``wanted``, or in the end (the page forbids playwright's own waiting)."""
        deadline = time.monotonic() + seconds
        while (found := self.page.evaluate(script)) != wanted and time.monotonic() < deadline:
            self.page.wait_for_timeout(50)
        return found


def launch(driver: Any) -> Any:
    """Start the installed Chromium (none is ever downloaded); the test is skipped where there is none."""
    executable = next((found for name in NAMES if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)})")
    return driver.chromium.launch(executable_path=executable, args=list(ARGUMENTS))


@contextmanager
def visit(browser: Any, path: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator[Visit]:
    """Open a report and wait until its plots are drawn."""
    url = path.resolve().as_uri()
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
    context.set_default_timeout(180_000)  # a page of 5 MB takes a while where other programs hold all cores
    seen = Visit(context.new_page())
    bad = ("error", "warning")
    seen.page.on("console", lambda m: seen.problems.append(f"console: {m.text}") if m.type in bad else None)
    seen.page.on("pageerror", lambda error: seen.problems.append(f"exception: {error}"))
    seen.page.on(
        "request", lambda r: seen.requests.append(r.url) if r.url != url and not r.url.startswith("data:") else None
    )
    seen.page.goto(url)
    seen.page.wait_for_selector("html[data-drawn]", state="attached")
    yield seen
    context.close()
