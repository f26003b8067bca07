"""The synchronous and the asynchronous runner of requests, and their common parts."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

import httpx2

from xinference.client.answers import UnexpectedAnswer, read_problem
from xinference.client.request import Request, StreamRequest
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, system_reason
from xinference.hosts import is_server_url, is_this_machine, server_url

T = TypeVar("T")
C = TypeVar("C")
AnyRequest = Request[Any] | StreamRequest[Any]

CONNECT_SECONDS = 5.0
#: Long, because a dry run may request file sizes from a hub, and a stop may wait until engines exit.
ANSWER_SECONDS = 120.0
#: Seconds to wait before each retry of a request.
RETRY_SECONDS = (0.1, 0.4)


def is_local(url: str) -> bool:
    """Whether a connection to `url` stays on this machine."""
    return is_this_machine(httpx2.URL(url).host)


def may_repeat(method: str, error: httpx2.TransportError) -> bool:
    """Whether a request that failed with `error` can be sent again without being executed twice.

    Without a connection nothing was sent, and a GET changes nothing. A time-out is reported, not retried.
    """
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return True
    return method == "GET" and not isinstance(error, httpx2.TimeoutException)


class Runner:
    """The server's URL and the headers of every request; converts errors to problems.

    Args:
        base_url: the server's URL, with or without a slash at its end.
        auth_headers: sent with every request.
        timeout: maximum seconds between two pieces of an answer; launches that wait, completions and streams have no
            time limit.
        retries: maximum number of retries where that is safe, 0 to 2.
        url_name: the name of the URL for its user, in hints: an argument, or an option of a command.

    Every request may raise a `Problem`: that of the server's answer, or one with the reason for a missing answer.
    """

    def __init__(
        self,
        base_url: str,
        auth_headers: Mapping[str, str] | None = None,
        *,
        timeout: float = ANSWER_SECONDS,
        retries: int = len(RETRY_SECONDS),
        url_name: str = "base_url",
    ) -> None:
        self._url_name = url_name
        self.base_url = _check_url(base_url)
        self.auth_headers = dict(auth_headers or {})
        self._timeout = timeout
        self._waits = (*RETRY_SECONDS[:retries], None)
        self._http_options: dict[str, Any] = {
            "base_url": self.base_url,
            "trust_env": not is_local(self.base_url),  # a proxy cannot reach this machine's loopback
            "verify": self.base_url.startswith("https:"),  # plain HTTP needs no certificates, which load slowly
        }

    def _http_client(self, kind: Callable[..., C]) -> C:
        """An HTTP client of httpx2.

        Raises:
            Problem: the environment names a proxy that can't be used.
        """
        try:
            return kind(**self._http_options)
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise bad_request(
                f"The proxy that the environment sets for {self.base_url} can't be used: {error}",
                hint="Set HTTP_PROXY, HTTPS_PROXY or ALL_PROXY to an HTTP proxy, or add the server's host to NO_PROXY.",
                code=Code.BAD_ENDPOINT,
            ) from error

    @property
    def model_uid(self) -> str:
        """The uid of a handle's model."""
        raise TypeError(f"{type(self).__name__} has no model")

    def _message(self, request: AnyRequest) -> dict[str, Any]:
        """The arguments for httpx2's ``build_request``."""
        without_timeout = isinstance(request, StreamRequest) or request.without_timeout
        return {
            "method": request.method,
            "url": request.path,
            "params": dict(request.query),
            "json": request.body,
            "headers": self.auth_headers | dict(request.headers if isinstance(request, StreamRequest) else ()),
            "timeout": httpx2.Timeout(None if without_timeout else self._timeout, connect=CONNECT_SECONDS),
        }

    def _check(self, path: str, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        if status < 400:
            return
        if status >= 500 and not headers.get("content-type", "").startswith("application/json"):
            text = body.decode("utf-8", "replace").strip()[:200]
            raise Problem(Code.SERVER_ERROR, f"The server at {self.base_url} answered {status}: {text}", status=status)
        if path == "/health" and status == 404:
            raise self._wrong_server()
        raise read_problem(status, body, headers.get("retry-after"))

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        """Convert httpx2's exceptions to problems."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._no_server(error) from error
        except httpx2.TimeoutException as error:
            raise Problem(Code.SERVER_TIMEOUT, f"The server at {self.base_url} did not answer in time.") from error
        except httpx2.TransportError as error:
            raise self._connection_lost() from error
        except UnexpectedAnswer as error:
            raise self._wrong_server() from error

    def _no_server(self, error: Exception) -> Problem:
        reason = "" if "refused" in str(error).lower() else f" ({system_reason(error)})"
        return Problem(
            Code.NO_SERVER,
            f"No server answers at {self.base_url}{reason}.",
            hint="Start one with `xinference launch NAME` or `xinference serve --background`, or give the URL of "
            f"another one with {self._url_name}.",
        )

    def _connection_lost(self) -> Problem:
        return Problem(
            Code.SERVER_GONE,
            f"The server at {self.base_url} closed the connection before the answer was complete.",
            hint="It died or was stopped; see logs/server.log in its home folder.",
        )

    def _wrong_server(self) -> Problem:
        return Problem(
            Code.NOT_OUR_SERVER,
            f"The program that answers at {self.base_url} is not an Xinference server.",
            hint=f"Give the URL of the server with {self._url_name}, or use another port.",
        )


class SyncRunner(Runner):
    """Runs requests one after the other; streams are generators, and closing one aborts its request."""

    def __init__(self, base_url: str, auth_headers: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(base_url, auth_headers, **options)
        self._http = self._http_client(httpx2.Client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def run(self, request: Request[T]) -> T: ...

    @overload
    def run(self, request: StreamRequest[T]) -> Generator[T, None, None]: ...

    def run(self, request: Request[T] | StreamRequest[T]) -> T | Generator[T, None, None]:
        """Send a request and read its answer; a stream is open when this returns, so that errors are raised here."""
        if isinstance(request, StreamRequest):
            items = self._items(request)
            next(items)
            return cast("Generator[T, None, None]", items)
        with self._convert_errors():
            response = self._send(request)
            self._check(request.path, response.status_code, response.content, response.headers)
            return request.answer(response.content, response.headers)

    def _items(self, request: StreamRequest[T]) -> Generator[T | None, None, None]:
        decoder = request.decoder()
        with self._convert_errors(), closing(self._send(request)) as response:
            if response.status_code >= 400:
                self._check(request.path, response.status_code, response.read(), response.headers)
            yield None  # the stream is open
            for chunk in response.iter_bytes():
                yield from decoder.feed(chunk)
        if not decoder.complete():
            raise self._connection_lost()

    def _send(self, request: AnyRequest) -> httpx2.Response:
        message = self._message(request)
        for wait in self._waits:
            try:
                return self._http.send(self._http.build_request(**message), stream=isinstance(request, StreamRequest))
            except httpx2.TransportError as error:
                if wait is None or not may_repeat(request.method, error):
                    raise
            time.sleep(wait)
        raise AssertionError("the last wait is None")


class AsyncRunner(Runner):
    """Runs requests concurrently; streams are async generators, and closing one aborts its request."""

    def __init__(self, base_url: str, auth_headers: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(base_url, auth_headers, **options)
        self._http = self._http_client(httpx2.AsyncClient)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @overload
    async def run(self, request: Request[T]) -> T: ...

    @overload
    async def run(self, request: StreamRequest[T]) -> AsyncGenerator[T, None]: ...

    async def run(self, request: Request[T] | StreamRequest[T]) -> T | AsyncGenerator[T, None]:
        """Send a request and read its answer; a stream is open when this returns, so that errors are raised here."""
        if isinstance(request, StreamRequest):
            items = self._items(request)
            await anext(items)
            return cast("AsyncGenerator[T, None]", items)
        with self._convert_errors():
            response = await self._send(request)
            self._check(request.path, response.status_code, response.content, response.headers)
            return request.answer(response.content, response.headers)

    async def _items(self, request: StreamRequest[T]) -> AsyncGenerator[T | None, None]:
        decoder = request.decoder()
        with self._convert_errors():
            response = await self._send(request)
            async with aclosing(response):
                if response.status_code >= 400:
                    self._check(request.path, response.status_code, await response.aread(), response.headers)
                yield None  # the stream is open
                async for chunk in response.aiter_bytes():
                    for item in decoder.feed(chunk):
                        yield item
        if not decoder.complete():
            raise self._connection_lost()

    async def _send(self, request: AnyRequest) -> httpx2.Response:
        message = self._message(request)
        for wait in self._waits:
            try:
                return await self._http.send(
                    self._http.build_request(**message), stream=isinstance(request, StreamRequest)
                )
            except httpx2.TransportError as error:
                if wait is None or not may_repeat(request.method, error):
                    raise
            from asyncio import sleep  # it takes 30 ms to import, and the command line does not need it

            await sleep(wait)
        raise AssertionError("the last wait is None")


def _check_url(base_url: str) -> str:
    server = server_url(base_url)
    try:
        httpx2.URL(server)
        is_valid = is_server_url(server)
    except httpx2.InvalidURL:
        is_valid = False
    if not is_valid:
        raise bad_request(
            f"The endpoint {base_url!r} is not a URL.",
            hint="Use a URL such as http://127.0.0.1:9997",
            code=Code.BAD_ENDPOINT,
        )
    return server
