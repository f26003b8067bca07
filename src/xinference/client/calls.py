"""Binding the table of requests to whoever runs them: each method is written once and lives in both clients."""

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
    """A method made of a function that builds a request.

    On a `SyncRunner` it answers with `Now`, on an `AsyncRunner` it is to be awaited for `Later`. Arguments and
    documentation are the function's.
    """

    def __init__(self, request: Callable[..., Any]) -> None:
        self.request = request
        self.__doc__ = request.__doc__
        self.__wrapped__ = request  # where `inspect` finds the signature

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
        """What ``Client.method(client, ...)`` does."""
        return self.__get__(runner, type(runner))(*args, **kwargs)  # type: ignore[call-overload]

    def request_of(self, runner: Runner) -> Callable[..., Any]:
        """The function that builds this runner's request."""
        return self.request


class ModelCall(Call[P, Now, Later]):
    """A `Call` of a model handle: the function's first argument is the model that the handle stands for."""

    def request_of(self, runner: Runner) -> Callable[..., Any]:
        of_this_model = partial(self.request, runner.model_uid)
        of_this_model.__doc__ = self.__doc__
        return of_this_model


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
    """A method whose answer is read as a whole."""
    return Call(request)


def streamed(request: Callable[P, StreamRequest[T]]) -> Call[P, Generator[T, None, None], AsyncGenerator[T, None]]:
    """A method whose answer is an iterator of what comes."""
    return Call(request)


def of_model(request: Callable[Concatenate[str, P], Request[T]]) -> ModelCall[P, T, T]:
    """A handle's method whose answer is read as a whole."""
    return ModelCall(request)


def whole_or_streamed(
    request: Callable[Concatenate[str, P], Request[Any] | StreamRequest[Any]],
) -> ModelCall[P, Any, Any]:
    """A handle's method that answers as a whole or, asked to stream, with an iterator."""
    return ModelCall(request)
