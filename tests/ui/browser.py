"""What goes wrong in a page of a real browser, while a story is played in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Dialog, Page, Request, Response

#: Reports of the policy arrive as an error in the console, which other errors cannot be taken for.
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`));
"""


@dataclass
class Watch:
    """Collects the faults of one page; a story names those that it expects."""

    address: str
    faults: list[str] = field(default_factory=list)
    #: Parts of faults that the story causes itself.
    expected: list[str] = field(default_factory=list)
    #: The addresses of all requests.
    requests: list[str] = field(default_factory=list)
    #: Texts of the browser's own dialogs. A story accepts those that it causes.
    dialogs: list[str] = field(default_factory=list)

    def attach(self, page: Page) -> None:
        page.add_init_script(REPORT_VIOLATIONS)
        page.on("console", self._read_console)
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on("request", self._read_request)
        page.on("response", self._read_response)
        page.on("dialog", self._accept)

    def unexpected(self) -> list[str]:
        return [fault for fault in self.faults if not any(part in fault for part in self.expected)]

    def _read_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _read_request(self, request: Request) -> None:
        self.requests.append(request.url)
        target = urlsplit(request.url)
        if target.scheme not in ("data", "blob") and f"{target.scheme}://{target.netloc}" != self.address:
            self.faults.append(f"request to another host: {request.url}")

    def _read_response(self, response: Response) -> None:
        if response.status >= 500:
            self.faults.append(f"status {response.status} of {response.url}")

    def _accept(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.accept()
