"""The answer of another machine to one GET request, collected within limits."""

from __future__ import annotations

import httptools

#: Maximum bytes of an answer's head.
MAX_HEAD = 64 * 1024


class AnswerError(Exception):
    """The answer is not one that is accepted; the text is the end of a sentence about the host."""


class Answer:
    """Collects the pieces of one answer.

    Attributes:
        status: 0 before the head is complete.
        location: the value of the header `Location`; None without one.
        content: the body so far.
        is_complete: whether the answer has ended.
    """

    def __init__(self, max_bytes: int) -> None:
        self.status = 0
        self.location: str | None = None
        self.content = bytearray()
        self.is_complete = False
        self._max_bytes = max_bytes
        self._received = 0
        self._has_length = False
        self._failure: str | None = None
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Add bytes of the connection.

        Raises:
            AnswerError: the answer is too large, is encoded, or is not HTTP.
        """
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("does not answer in HTTP")
        # Heads, trailers and the frames of chunks have no limit of the parser.
        if self._received - len(self.content) > MAX_HEAD + len(self.content) // 8 and not self.is_complete:
            self._fail("sends too much beside its content")
        if self._failure is not None:
            raise AnswerError(self._failure)

    def end(self) -> None:
        """Note that the connection has ended.

        Raises:
            AnswerError: the answer is not complete.
        """
        if not self.is_complete and (not self.status or self._has_length):
            raise AnswerError("closed the connection before the end of its answer")

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why

    # -- callbacks of the parser ------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self.status:
            return  # a trailer
        if name == b"location":
            self.location = value.decode("latin-1")
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            self._fail("sends a compressed answer, which was not asked for")
        elif name == b"content-length":
            self._has_length = True
            if not value.isdigit() or int(value[:20]) > self._max_bytes:
                self._too_large()
        elif name == b"transfer-encoding":
            self._has_length = True
            if value.strip().lower() != b"chunked":
                self._fail("sends a compressed answer, which was not asked for")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status

    def on_body(self, body: bytes) -> None:
        self.content += body
        if len(self.content) > self._max_bytes:
            self._too_large()

    def on_message_complete(self) -> None:
        self.is_complete = self.status > 0

    def _too_large(self) -> None:
        self._fail(f"sends more than {self._max_bytes} bytes")
