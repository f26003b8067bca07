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
Now = TypeVar("Now")
Later = TypeVar("Later")


class Call(Generic[P, Now, Later]):
    """A method made from a function that builds a request.

    On a `SyncRunner` it returns `Now`, on an `AsyncRunner` an awaitable of `Later`. Arguments and documentation are
    those of the function.
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
    def __get__(self, runner: SyncRunner, owner: type) -> Callable[P, Now]: ...

    @overload
    def __get__(self, runner: AsyncRunner, owner: type) -> Callable[P, Awaitable[Later]]: ...

    def __get__(self, runner: Runner | None, owner: type) -> Any:
        return self if runner is None else _bound(runner, self.request_of(runner))

    def __call__(self, runner: Runner, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Runs ``Client.method(client, ...)``."""
        return self.__get__(runner, type(runner))(*args, **kwargs)  # type: ignore[call-overload]

    def request_of(self, runner: Runner) -> Callable[..., Any]:
        """The function that builds this runner's request."""
        return self.request


class ModelCall(Call[P, Now, Later]):
    """A `Call` of a model handle: the function's first argument is the uid of the handle's model."""

    def request_of(self, runner: Runner) -> Callable[..., Any]:
        bound = partial(self.request, runner.model_uid)
        bound.__doc__ = self.__doc__
        return bound


def _bound(runner: Runner, request: Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(runner, AsyncRunner):

        @wraps(request)
        async def later(*args: Any, **kwargs: Any) -> Any:
            return await runner.run(request(*args, **kwargs))

        return later

    assert isinstance(runner, SyncRunner)

    @wraps(request)
    def now(*args: Any, **kwargs: Any) -> Any:
        return runner.run(request(*args, **kwargs))

    return now


def whole(request: Callable[P, Request[T]]) -> Call[P, T, T]:
    """A method that returns a whole answer."""
    return Call(request)


def streamed(request: Callable[P, StreamRequest[T]]) -> Call[P, Generator[T, None, None], AsyncGenerator[T, None]]:
    """A method that returns an iterator over a streamed answer."""
    return Call(request)


def of_model(request: Callable[Concatenate[str, P], Request[T]]) -> ModelCall[P, T, T]:
    """A handle's method that returns a whole answer."""
    return ModelCall(request)


def whole_or_streamed(
    request: Callable[Concatenate[str, P], Request[Any] | StreamRequest[Any]],
) -> ModelCall[P, Any, Any]:
    """A handle's method that returns a whole answer or, with ``stream``, an iterator."""
    return ModelCall(request)
