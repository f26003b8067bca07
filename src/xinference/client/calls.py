"""Turns functions that build requests into methods of both clients, so that each method is written once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial, wraps
from inspect import signature
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from xinference.client.connection import AsyncRunner, Runner, SyncRunner
from xinference.client.request import Request, StreamRequest

P = ParamSpec("P")
T = TypeVar("T")
Result = TypeVar("Result")
AsyncResult = TypeVar("AsyncResult")


class Call(Generic[P, Result, AsyncResult]):
    """A method made from a function that builds a request. It has the arguments and the docstring of the function.

    On a `SyncRunner` it returns a `Result`, on an `AsyncRunner` an awaitable of an `AsyncResult`.
    """

    def __init__(self, request: Callable[..., Any]) -> None:
        self.request = request
        self.__doc__ = request.__doc__
        self.__wrapped__ = request  # `inspect` reads the signature from it

    def __repr__(self) -> str:
        return f"<call {self.request.__name__}{signature(self.request)}>"

    @overload
    def __get__(self, runner: None, owner: type) -> Self: ...

    @overload
    def __get__(self, runner: SyncRunner, owner: type) -> Callable[P, Result]: ...

    @overload
    def __get__(self, runner: AsyncRunner, owner: type) -> Callable[P, Awaitable[AsyncResult]]: ...

    def __get__(self, runner: Runner | None, owner: type) -> Any:
        return self if runner is None else _bound(runner, self.request_of(runner))

    def __call__(self, runner: Runner, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Runs ``Client.method(client, ...)``."""
        return _bound(runner, self.request_of(runner))(*args, **kwargs)

    def request_of(self, runner: Runner) -> Callable[..., Any]:
        """The function that builds this runner's request."""
        return self.request


class ModelCall(Call[P, Result, AsyncResult]):
    """A `Call` of a model handle: the function's first argument is the uid of the handle's model."""

    def request_of(self, runner: Runner) -> Callable[..., Any]:
        bound = partial(self.request, runner.model_uid)
        bound.__doc__ = self.__doc__
        return bound


def _bound(runner: Runner, request: Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(runner, AsyncRunner):

        @wraps(request)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            return await runner.run(request(*args, **kwargs))

        return run_async

    assert isinstance(runner, SyncRunner)

    @wraps(request)
    def run(*args: Any, **kwargs: Any) -> Any:
        return runner.run(request(*args, **kwargs))

    return run


def answer_call(request: Callable[P, Request[T]]) -> Call[P, T, T]:
    """A method that returns a whole answer."""
    return Call(request)


def stream_call(request: Callable[P, StreamRequest[T]]) -> Call[P, Generator[T, None, None], AsyncGenerator[T, None]]:
    """A method that returns an iterator over a streamed answer."""
    return Call(request)


def model_call(request: Callable[Concatenate[str, P], Request[T]]) -> ModelCall[P, T, T]:
    """A handle's method that returns a whole answer."""
    return ModelCall(request)


def model_stream_call(
    request: Callable[Concatenate[str, P], Request[Any] | StreamRequest[Any]],
) -> ModelCall[P, Any, Any]:
    """A handle's method that returns a whole answer or, with ``stream``, an iterator."""
    return ModelCall(request)
