"""`Client` and `AsyncClient`, which have the same methods: synchronous ones and asynchronous ones."""

from __future__ import annotations

from typing import Any

from xinference.client import (
    catalog_requests,
    catalog_update_requests,
    cluster_requests,
    handles,
    instance_requests,
    key_requests,
    launch_requests,
    relaunch_requests,
    server_requests,
    usage_requests,
)
from xinference.client.calls import answer_call, stream_call
from xinference.client.connection import AsyncRunner, Runner, SyncRunner
from xinference.error_codes import Code
from xinference.errors import Problem


class Methods(Runner):
    """The methods of both clients; all methods of `AsyncClient` are awaited, also those that return a stream."""

    health = answer_call(server_requests.health)
    auth = answer_call(server_requests.auth)
    status = answer_call(server_requests.status)
    request_token = answer_call(server_requests.request_token)

    launch_model = answer_call(launch_requests.launch_model)
    begin_launch = answer_call(launch_requests.begin_launch)
    plan_launch = answer_call(launch_requests.plan_launch)
    follow_events = stream_call(launch_requests.follow_events)
    get_launch_model_progress = answer_call(launch_requests.get_launch_model_progress)
    cancel_launch_model = answer_call(launch_requests.cancel_launch_model)

    list_models = answer_call(instance_requests.list_models)
    list_instances = answer_call(instance_requests.list_instances)
    get_instance_info = answer_call(instance_requests.get_instance_info)
    describe_model = answer_call(instance_requests.describe_model)
    terminate_model = answer_call(instance_requests.terminate_model)
    set_aliases = answer_call(instance_requests.set_aliases)
    set_terms = answer_call(instance_requests.set_terms)
    unload_model = answer_call(instance_requests.unload_model)
    load_model = answer_call(instance_requests.load_model)
    restart_model = answer_call(instance_requests.restart_model)
    reload_model = answer_call(instance_requests.reload_model)
    get_model_reload_status = answer_call(instance_requests.get_model_reload_status)
    get_model_reload_config = answer_call(instance_requests.get_model_reload_config)
    launch_history = answer_call(launch_requests.launch_history)
    list_model_replicas = answer_call(instance_requests.list_model_replicas)
    add_model_replica = answer_call(instance_requests.add_model_replica)
    terminate_model_replica = answer_call(instance_requests.terminate_model_replica)
    logs = stream_call(instance_requests.logs)
    log_from = answer_call(instance_requests.log_from)
    server_logs = stream_call(server_requests.server_logs)
    engine_figures = answer_call(instance_requests.engine_figures)
    abort_request = answer_call(instance_requests.abort_request)
    get_progress = answer_call(server_requests.get_progress)
    list_requests = answer_call(usage_requests.list_requests)
    list_active_requests = answer_call(usage_requests.list_active_requests)
    abort_active_request = answer_call(usage_requests.abort_active_request)
    stats = answer_call(usage_requests.stats)
    devices = answer_call(usage_requests.devices)
    watch = stream_call(usage_requests.watch)
    usage = answer_call(usage_requests.usage)

    query_engine_by_model_name = answer_call(catalog_requests.query_engine_by_model_name)
    engine_rows = answer_call(catalog_requests.engine_rows)
    vllm_models = answer_call(catalog_requests.engine_models("vllm_models"))
    register_model = answer_call(catalog_requests.register_model)
    unregister_model = answer_call(catalog_requests.unregister_model)
    list_model_registrations = answer_call(catalog_requests.list_model_registrations)
    list_fits = answer_call(catalog_requests.list_fits)
    list_engine_options = answer_call(catalog_requests.list_engine_options)
    get_model_registration = answer_call(catalog_requests.get_model_registration)

    list_catalogs = answer_call(catalog_update_requests.list_catalogs)
    update_catalog = answer_call(catalog_update_requests.update_catalog)
    compare_catalog = answer_call(catalog_update_requests.compare_catalog)
    rollback_catalog = answer_call(catalog_update_requests.rollback_catalog)
    update_model_type = answer_call(catalog_update_requests.update_model_type)
    update_model_spec = answer_call(catalog_update_requests.update_model_spec)

    list_cached_models = answer_call(catalog_requests.list_cached_models)
    list_deletable_models = answer_call(catalog_requests.list_deletable_models)
    confirm_and_remove_model = answer_call(catalog_requests.confirm_and_remove_model)
    remove_cached_model = answer_call(catalog_requests.remove_cached_model)
    download_model = answer_call(catalog_requests.download_model)
    follow_download = stream_call(catalog_requests.follow_download)
    cancel_download = answer_call(catalog_requests.cancel_download)

    cluster_nodes = answer_call(cluster_requests.cluster_nodes)
    ray_cluster = answer_call(cluster_requests.ray_cluster)
    drain_node = answer_call(cluster_requests.drain_node)
    undrain_node = answer_call(cluster_requests.undrain_node)
    upgrade_node = answer_call(cluster_requests.upgrade_node)
    remove_node = answer_call(cluster_requests.remove_node)
    create_join_token = answer_call(cluster_requests.create_join_token)
    list_join_tokens = answer_call(cluster_requests.list_join_tokens)
    revoke_join_token = answer_call(cluster_requests.revoke_join_token)

    list_keys = answer_call(key_requests.list_keys)
    create_key = answer_call(key_requests.create_key)
    update_key = answer_call(key_requests.update_key)
    revoke_key = answer_call(key_requests.revoke_key)
    forget_keys = answer_call(key_requests.forget_keys)
    create_login_code = answer_call(key_requests.create_login_code)

    get_workers_info = answer_call(server_requests.get_workers_info)
    get_supervisor_info = answer_call(server_requests.get_supervisor_info)
    abort_cluster = answer_call(server_requests.abort_cluster)
    get_autostart_config = answer_call(launch_requests.get_autostart_config)
    get_autostart_model_summary = answer_call(launch_requests.get_autostart_model_summary)
    upsert_autostart_model = answer_call(launch_requests.upsert_autostart_model)
    remove_autostart_model = answer_call(launch_requests.remove_autostart_model)

    relaunch_api = answer_call(relaunch_requests.relaunch_api)
    get_api_relaunch = answer_call(relaunch_requests.get_api_relaunch)
    list_api_relaunches = answer_call(relaunch_requests.list_api_relaunches)
    relaunch_supervisor = answer_call(relaunch_requests.relaunch_supervisor)
    get_supervisor_relaunch = answer_call(relaunch_requests.get_supervisor_relaunch)
    list_supervisor_relaunches = answer_call(relaunch_requests.list_supervisor_relaunches)
    relaunch_worker = answer_call(relaunch_requests.relaunch_worker)
    get_worker_relaunch = answer_call(relaunch_requests.get_worker_relaunch)
    list_worker_relaunches = answer_call(relaunch_requests.list_worker_relaunches)

    def _use_token(self, token: str) -> None:
        self.auth_headers["Authorization"] = f"Bearer {token}"


class Client(Methods, SyncRunner):
    """A client of one server; may be used from several threads.

    Args:
        base_url: such as ``http://127.0.0.1:9997``.
        api_key: a key, if the server requires one.
        check: check at once that the server answers, not only at the first request.
        options: ``timeout`` (seconds), ``retries`` and ``url_name``, as of `Runner`.

    Raises:
        Problem: no server answers, or another program does. A Problem is a RuntimeError.
    """

    def __init__(self, base_url: str, api_key: str | None = None, *, check: bool = True, **options: Any) -> None:
        super().__init__(base_url, _key_header(api_key), **options)
        if check:
            self._check_server()

    def login(self, username: str, password: str) -> None:
        """Get a token and send it with every further request."""
        self._use_token(self.request_token(username, password))

    def get_model(self, model_uid: str) -> Any:
        """The handle of a model, by its type and abilities: see `handles`."""
        description = self.describe_model(model_uid)
        handle = handles.SYNC[handles.kind(model_uid, description)]
        return handle(model_uid, self.base_url, self.auth_headers, url_name=self._url_name)

    def _check_server(self) -> None:
        try:
            self.auth()
        except Problem as problem:
            if problem.status != 404:  # an older server without keys
                raise


class AsyncClient(Methods, AsyncRunner):
    """The asynchronous `Client`. It sends nothing to the server before the first call.

    Args:
        base_url: such as ``http://127.0.0.1:9997``.
        api_key: a key, if the server requires one.
        options: ``timeout`` (seconds), ``retries`` and ``url_name``, as of `Runner`.
    """

    def __init__(self, base_url: str, api_key: str | None = None, **options: Any) -> None:
        super().__init__(base_url, _key_header(api_key), **options)

    async def login(self, username: str, password: str) -> None:
        """Get a token and send it with every further request."""
        self._use_token(await self.request_token(username, password))

    async def get_model(self, model_uid: str) -> Any:
        """The handle of a model, by its type and abilities: see `handles`."""
        description = await self.describe_model(model_uid)
        handle = handles.ASYNC[handles.kind(model_uid, description)]
        return handle(model_uid, self.base_url, self.auth_headers, url_name=self._url_name)


def _key_header(api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise Problem(Code.INVALID_API_KEY, "The API key has a character that no key has.")
    return {"Authorization": f"Bearer {api_key}"}
