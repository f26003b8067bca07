"""`Client`: the table of requests, run one after the other over httpx2."""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import httpx2

from xinference.client import requests
from xinference.client.answers import Json, UnexpectedAnswer, read_problem
from xinference.client.requests import Request, StreamRequest
from xinference.errors import Problem, bad_request

T = TypeVar("T")

CONNECT_SECONDS = 5.0
#: A dry run may ask a hub for file sizes, a stop may wait for engines to end.
ANSWER_SECONDS = 120.0


def is_loopback(url: str) -> bool:
    """Whether `url` names this very machine."""
    host = httpx2.URL(url).host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


class Client:
    """Talks to one server. It connects with the first request, not before.

    Every method raises `Problem`: the server's own, or one that says why there is no answer.
    """

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self.base_url = _checked(base_url)
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=not is_loopback(self.base_url),  # a proxy cannot reach our loopback
            verify=self.base_url.startswith("https:"),  # plain HTTP: spare the start the loading of certificates
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Json:
        """``{"status": "ok"}`` if a server of ours answers."""
        answer = self._call(requests.health())
        if "status" not in answer:
            raise self._not_ours()
        return answer

    def status(self) -> Json:
        """Version, process id, uptime (seconds) and home of the server."""
        return self._call(requests.status())

    def launch_model(
        self,
        /,
        model_name: str,
        model_type: str = "LLM",
        model_engine: str | None = None,
        model_uid: str | None = None,
        model_size_in_billions: int | str | None = None,
        model_format: str | None = None,
        quantization: str | None = None,
        replica: int = 1,
        n_gpu: int | str | None = "auto",
        gpu_idx: int | Sequence[int] | None = None,
        model_path: str | None = None,
        download_hub: str | None = None,
        *,
        wait_ready: bool = True,
        **options: Any,
    ) -> str:
        """Launch a model and return its uid, once it is ready or (`wait_ready` False) as soon as it is accepted.

        Args:
            n_gpu: ``auto``, a count for each replica, or None for the CPU only.
            gpu_idx: the very devices, dealt out to the replicas in turn; wins over `n_gpu`.
            options: the engine's own options, by its own names.
        """
        body = requests.launch_body(
            model_name=model_name,
            model_type=model_type,
            model_engine=model_engine,
            model_uid=model_uid,
            model_size_in_billions=model_size_in_billions,
            model_format=model_format,
            quantization=quantization,
            replica=replica,
            n_gpu=n_gpu,
            gpu_idx=gpu_idx,
            model_path=model_path,
            download_hub=download_hub,
            **options,
        )
        return self._call(requests.launch_model(body, wait_ready=wait_ready))

    def plan_launch(self, /, model_name: str, **arguments: Any) -> Json:
        """What `launch_model` with the same arguments would do, and why; nothing is started."""
        return self._call(requests.plan_launch(requests.launch_body(model_name=model_name, **arguments)))

    def follow_events(self, model_uid: str) -> Generator[Json, None, None]:
        """The events of a launch as they happen, up to and with READY, FAILED or TERMINATED."""
        return self._stream(requests.follow_events(model_uid))

    def list_models(self) -> list[Json]:
        """The models that are ready, as OpenAI lists them."""
        return self._call(requests.list_models())

    def list_instances(self) -> list[Json]:
        """Everything that was launched, with its status, replicas and problem."""
        return self._call(requests.list_instances())

    def describe_model(self, model_uid: str) -> Json:
        """What is known of one launched model."""
        return self._call(requests.describe_model(model_uid))

    def terminate_model(self, model_uid: str) -> None:
        """Stop a model, or cancel its launch."""
        self._call(requests.terminate_model(model_uid))

    def logs(self, model_uid: str, *, lines: int = 40, follow: bool = False) -> Generator[str, None, None]:
        """The last `lines` lines of the engine's output, in pieces cut anywhere; with `follow` what comes, too."""
        return self._stream(requests.logs(model_uid, lines=lines, follow=follow))

    def engines(self, model_name: str) -> Json:
        """Engine -> the versions of the model that it runs, or the reason why it runs none."""
        return self._call(requests.engines(model_name))

    def engine_rows(self, model_name: str) -> list[Json]:
        """For each version of the model and each engine: ``ok``, or the ``reason`` why it can't run here."""
        return self._call(requests.engine_rows(model_name))

    def registrations(self, model_type: str = "LLM") -> list[Json]:
        """The model families that can be launched, with their specs."""
        return self._call(requests.registrations(model_type))

    def registration(self, model_type: str, model_name: str) -> Json:
        """One model family."""
        return self._call(requests.registration(model_type, model_name))

    def list_cached_models(self, model_name: str | None = None) -> list[Json]:
        """What is in the caches of the server's machine: path, size in bytes, and whether it is complete."""
        return self._call(requests.list_cached_models(model_name))

    def list_deletable_models(self, model_version: str) -> Json:
        """What `confirm_and_remove_model` would delete: ``files``, and the versions they are ``shared_with``."""
        return self._call(requests.list_deletable_models(model_version))

    def confirm_and_remove_model(self, model_version: str) -> Json:
        """Delete what is cached of a version, such as ``llama-2-chat--7B--ggufv2--Q4_K_M``: ``freed_bytes``."""
        return self._call(requests.remove_cached_model(model_version))

    def download_model(self, /, model_name: str, **named: Any) -> str:
        """Begin to fetch a version, named as for `launch_model`, and return its version id at once."""
        given = {name: value for name, value in named.items() if value is not None}
        return self._call(requests.download_model({"model_name": model_name, **given}))

    def follow_download(self, model_version: str) -> Generator[Json, None, None]:
        """The events of a download as they happen, up to and with READY (``model`` has the path) or FAILED."""
        return self._stream(requests.follow_download(model_version))

    def cancel_download(self, model_version: str) -> None:
        """Stop a download; what came is kept for the next one."""
        self._call(requests.cancel_download(model_version))

    def chat(self, model_uid: str, messages: Sequence[Json], **config: Any) -> Json:
        """One chat completion; `config` are fields of OpenAI's request."""
        return self._call(requests.chat(model_uid, messages, config))

    def chat_stream(self, model_uid: str, messages: Sequence[Json], **config: Any) -> Generator[Json, None, None]:
        """The chunks of a chat completion as they come; closing the iterator stops the model."""
        return self._stream(requests.chat_stream(model_uid, messages, config))

    def generate(self, model_uid: str, prompt: str, **config: Any) -> Json:
        """One completion of `prompt`; `config` are fields of OpenAI's request."""
        return self._call(requests.generate(model_uid, prompt, config))

    def generate_stream(self, model_uid: str, prompt: str, **config: Any) -> Generator[Json, None, None]:
        """The chunks of a completion as they come; closing the iterator stops the model."""
        return self._stream(requests.generate_stream(model_uid, prompt, config))

    def stop_cluster(self) -> None:
        """Stop every model and the server itself."""
        self._call(requests.stop_cluster())

    def _call(self, request: Request[T]) -> T:
        timeout = httpx2.Timeout(None if request.patient else ANSWER_SECONDS, connect=CONNECT_SECONDS)
        with self._explained():
            response = self._http.request(
                request.method, request.path, params=dict(request.query), json=request.body, timeout=timeout
            )
            self._check(request.path, response.status_code, response.content, response.headers)
            return request.read(response.content)

    def _stream(self, request: StreamRequest[T]) -> Generator[T, None, None]:
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        query = dict(request.query)
        decoder = request.decoder()
        with (
            self._explained(),
            self._http.stream(
                request.method, request.path, params=query, json=request.body, timeout=timeout
            ) as response,
        ):
            if response.status_code >= 400:
                self._check(request.path, response.status_code, response.read(), response.headers)
            for chunk in response.iter_bytes():
                yield from decoder.feed(chunk)
        if not decoder.complete():
            raise self._gone()

    def _check(self, path: str, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        if status < 400:
            return
        if status >= 500 and not headers.get("content-type", "").startswith("application/json"):
            text = body.decode("utf-8", "replace").strip()[:200]
            raise Problem("server_error", status, f"The server at {self.base_url} answered {status}: {text}")
        if path == "/health" and status == 404:
            raise self._not_ours()
        raise read_problem(status, body, headers.get("retry-after"))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what httpx2 raises into problems."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._no_server(error) from error
        except httpx2.TimeoutException as error:
            raise Problem("server_timeout", 504, f"The server at {self.base_url} did not answer in time.") from error
        except httpx2.TransportError as error:
            raise self._gone() from error
        except UnexpectedAnswer as error:
            raise self._not_ours() from error

    def _no_server(self, error: Exception) -> Problem:
        reason = "" if "refused" in str(error).lower() else f" ({error})"
        return Problem(
            "no_server",
            503,
            f"No server answers at {self.base_url}{reason}.",
            hint="Start one with `xinference serve`, or name another with --endpoint.",
        )

    def _gone(self) -> Problem:
        return Problem(
            "server_gone",
            503,
            f"The server at {self.base_url} ended the connection before the answer was complete.",
            hint="It died or was stopped; logs/server.log in its home folder may say why.",
        )

    def _not_ours(self) -> Problem:
        return Problem(
            "not_our_server",
            502,
            f"What answers at {self.base_url} is not an Xinference server.",
            hint="Name the right one with --endpoint, or use another port.",
        )


def _checked(base_url: str) -> str:
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise bad_request(
            f"The endpoint {base_url!r} is not a URL.", hint="Write it like http://127.0.0.1:9997", code="bad_endpoint"
        )
    return base_url.rstrip("/")
