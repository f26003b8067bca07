"""The error codes: one name and one HTTP status for each kind of problem. `docs/errors.md` explains them."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """A stable name for a kind of problem, with the HTTP status of its answer.

    A status of 0 means: the problem describes the answer of another server, and has the status of that answer.
    """

    status: int

    def __new__(cls, value: str, status: int) -> Code:
        code = str.__new__(cls, value)
        code._value_ = value
        code.status = status
        return code

    # Requests
    INVALID_REQUEST = "invalid_request", 400
    INVALID_JSON = "invalid_json", 400
    INVALID_MESSAGES = "invalid_messages", 400
    INVALID_TOKEN = "invalid_token", 400
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded", 400
    MEDIA_ADDRESS = "media_address", 400
    MEDIA_UNAVAILABLE = "media_unavailable", 400
    INVALID_MEDIA = "invalid_media", 400
    CONSTRAINT_TOO_COMPLEX = "constraint_too_complex", 400
    TEMPLATE_LIMIT = "template_limit", 400
    INVALID_CONSTRAINT = "invalid_constraint", 400
    TOOLS_UNSUPPORTED = "tools_unsupported", 400
    UNSUPPORTED_CONTENT = "unsupported_content", 400
    UNSUPPORTED_DIMENSIONS = "unsupported_dimensions", 400
    UNSUPPORTED_FIELD = "unsupported_field", 400
    UNSUPPORTED_PATH = "unsupported_path", 400
    ADAPTER_NOT_FOUND = "adapter_not_found", 400
    UNKNOWN_PATH = "unknown_path", 404
    MODEL_NOT_FOUND = "model_not_found", 404
    RESPONSE_NOT_FOUND = "response_not_found", 404
    REQUEST_NOT_FOUND = "request_not_found", 404
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    REQUEST_TIMEOUT = "request_timeout", 408
    REQUEST_TOO_LARGE = "request_too_large", 413
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415
    INVALID_HTTP = "invalid_http", 400
    HEADERS_TOO_LARGE = "headers_too_large", 431
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded", 429
    TOO_MANY_WAITING = "too_many_waiting", 429
    TOO_MANY_FOLLOWERS = "too_many_followers", 429
    TOO_MANY_CONNECTIONS = "too_many_connections", 503
    BODIES_TOO_LARGE = "bodies_too_large", 503
    REQUEST_ABORTED = "request_aborted", 499
    TIME_LIMIT_EXCEEDED = "time_limit_exceeded", 504
    HTTP_ERROR = "http_error", 0

    # Access
    INVALID_API_KEY = "invalid_api_key", 401
    WRONG_LOGIN = "wrong_login", 401
    SESSION_EXPIRED = "session_expired", 401
    SESSION_LOGGED_OUT = "session_logged_out", 401
    SESSION_KEY_REVOKED = "session_key_revoked", 401
    SESSION_KEY_EXPIRED = "session_key_expired", 401
    SESSION_REPLACED = "session_replaced", 401
    SESSION_ENDED = "session_ended", 401
    PERMISSION_DENIED = "permission_denied", 403
    FORBIDDEN_HOST = "forbidden_host", 403
    PROXY_WITHOUT_KEYS = "proxy_without_keys", 403
    CROSS_SITE_REQUEST = "cross_site_request", 403
    UNPROTECTED = "unprotected", 400
    KEY_NOT_FOUND = "key_not_found", 404
    KEY_NAME_TAKEN = "key_name_taken", 409

    # Choosing a model
    UNKNOWN_MODEL = "unknown_model", 400
    SIZE_NEEDED = "size_needed", 400
    CONTEXT_LENGTH_NEEDED = "context_length_needed", 400
    MODEL_TYPE_NEEDED = "model_type_needed", 400
    MODEL_PATH_NOT_FOUND = "model_path_not_found", 400
    MODEL_PATH_AMBIGUOUS = "model_path_ambiguous", 400
    PATH_NOT_FOUND = "path_not_found", 400
    PROJECTOR_NOT_FOUND = "projector_not_found", 400
    ENGINE_NOT_FOUND = "engine_not_found", 400
    ENGINE_UNSUPPORTED = "engine_unsupported", 400
    ENGINE_UNAVAILABLE = "engine_unavailable", 400
    UNKNOWN_OPTION = "unknown_option", 400
    BAD_OPTION = "bad_option", 400
    BAD_VARIABLE = "bad_variable", 400
    UNSUPPORTED_OPTION = "unsupported_option", 400
    REMOTE_CODE = "remote_code", 400
    UNSERVED_MODEL_TYPE = "unserved_model_type", 400
    NO_SUCH_DEVICE = "no_such_device", 400
    MODEL_UID_TAKEN = "model_uid_taken", 409

    # Weights and hubs
    UNKNOWN_HUB = "unknown_hub", 400
    NOT_ON_HUB = "not_on_hub", 400
    HUB_UNAVAILABLE = "hub_unavailable", 400
    HUB_UNREACHABLE = "hub_unreachable", 503
    HUB_TIMEOUT = "hub_timeout", 504
    HUB_BUSY = "hub_busy", 503
    OFFLINE = "offline", 503
    PEER_COPY_FAILED = "peer_copy_failed", 503
    PEER_REFUSED = "peer_refused", 502
    GATED_MODEL = "gated_model", 403
    REPO_NOT_FOUND = "repo_not_found", 404
    REVISION_NOT_FOUND = "revision_not_found", 404
    FILE_NOT_FOUND = "file_not_found", 404
    PACKAGE_NOT_FOUND = "package_not_found", 404
    BAD_SOURCE = "bad_source", 400
    BAD_PACKAGE = "bad_package", 502
    UNSAFE_FILE_NAME = "unsafe_file_name", 502
    HASH_MISMATCH = "hash_mismatch", 502
    DOWNLOAD_FAILED = "download_failed", 502
    CANCELLED = "cancelled", 499
    DISK_FULL = "disk_full", 507
    BAD_WEIGHT_FILE = "bad_weight_file", 400
    GGML_FACTS_MISSING = "ggml_facts_missing", 400
    UNKNOWN_QUANTIZATION = "unknown_quantization", 400
    SHAPE_UNKNOWN = "shape_unknown", 400
    DOWNLOAD_NOT_FOUND = "download_not_found", 404
    DOWNLOAD_RUNNING = "download_running", 409
    NOT_CACHED = "not_cached", 404
    OUTSIDE_CACHE = "outside_cache", 409
    IN_USE = "in_use", 409
    EXISTS = "exists", 409

    # Memory and launch
    DOES_NOT_FIT = "does_not_fit", 400
    NO_ROOM = "no_room", 503
    NOBODY_WAITS = "nobody_waits", 503
    LOAD_FAILED = "load_failed", 503
    LAUNCH_CANCELLED = "launch_cancelled", 499
    LAUNCH_FAILED = "launch_failed", 500
    NOT_LAUNCHING = "not_launching", 409
    NOT_RUNNING = "not_running", 409
    TOO_MANY_REPLICAS = "too_many_replicas", 400
    REPLICA_NOT_FOUND = "replica_not_found", 404
    REPLICA_STOPPED = "replica_stopped", 409
    LAST_REPLICA = "last_replica", 409
    MODEL_LOADING = "model_loading", 503
    MODEL_FAILED = "model_failed", 503
    MODEL_UNLOADED = "model_unloaded", 503

    # Engines
    ENGINE_DIED = "engine_died", 502
    ENGINE_HUNG = "engine_hung", 502
    ENGINE_OUT_OF_MEMORY = "engine_out_of_memory", 502
    REQUEST_CRASHES_ENGINE = "request_crashes_engine", 502
    ENGINE_KEEPS_DYING = "engine_keeps_dying", 503
    ENGINE_START_TIMEOUT = "engine_start_timeout", 503
    ENGINE_STOPPED = "engine_stopped", 409
    ENGINE_DETACHED = "engine_detached", 503
    ENGINE_BROKEN = "engine_broken", 503
    ENGINE_ERROR = "engine_error", 502
    ENGINE_REFUSED_KEY = "engine_refused_key", 502
    KEEPER_FAILED = "keeper_failed", 503
    ENVIRONMENT_UNKNOWN = "environment_unknown", 404
    ENVIRONMENT_MISSING = "environment_missing", 404
    ENVIRONMENT_UNAVAILABLE = "environment_unavailable", 400
    ENVIRONMENT_FAILED = "environment_failed", 502
    ENVIRONMENT_IN_USE = "environment_in_use", 409
    BAD_BUNDLE = "bad_bundle", 400
    BAD_LOCK = "bad_lock", 400
    BAD_PIP_CONFIGURATION = "bad_pip_configuration", 400
    UV_MISSING = "uv_missing", 500

    # Registrations
    INVALID_REGISTRATION = "invalid_registration", 400
    UNREADABLE_REGISTRATION = "unreadable_registration", 500
    BAD_REGISTRY_ENTRY = "bad_registry_entry", 400
    BAD_CATALOG = "bad_catalog", 400
    CATALOG_OLDER = "catalog_older", 409
    NO_EARLIER_CATALOG = "no_earlier_catalog", 409
    NO_CATALOG_SOURCE = "no_catalog_source", 400
    NAME_TAKEN = "name_taken", 400
    BUILTIN_MODEL = "builtin_model", 400

    # The server and its home
    BAD_SETTING = "bad_setting", 400
    HOME_TAKEN = "home_taken", 409
    PORT_TAKEN = "port_taken", 409
    CANNOT_WRITE = "cannot_write", 500
    CANNOT_DELETE = "cannot_delete", 500
    OUTPUT_NOT_WRITABLE = "output_not_writable", 400
    STORE_BUSY = "store_busy", 503
    STORE_UNUSABLE = "store_unusable", 500
    STORE_TOO_NEW = "store_too_new", 500
    UNREADABLE_ROW = "unreadable_row", 500
    UNSAFE_RUN_DIR = "unsafe_run_dir", 500
    INTERNAL_ERROR = "internal_error", 500
    SERVER_STOPPING = "server_stopping", 503
    MANAGEMENT_NOT_LOADED = "management_not_loaded", 503
    SYSTEM_ERROR = "system_error", 500
    NOT_HERE = "not_here", 501

    # Clusters
    INVALID_JOIN_TOKEN = "invalid_join_token", 400
    JOIN_TOKEN_REFUSED = "join_token_refused", 401
    JOIN_TOKEN_NOT_FOUND = "join_token_not_found", 404
    CLUSTER_IDENTITY_DAMAGED = "cluster_identity_damaged", 500
    NODE_UNKNOWN = "node_unknown", 503
    NO_NODE = "no_node", 503
    NODE_NOT_FOUND = "node_not_found", 404
    NODE_BUSY = "node_busy", 409
    NODE_REFUSED = "node_refused", 403
    CLUSTER_NOT_INSTALLED = "cluster_not_installed", 500
    NOT_A_CLUSTER = "not_a_cluster", 409
    WRONG_CLUSTER = "wrong_cluster", 502
    NODE_GONE = "node_gone", 503
    NODE_LEAVING = "node_leaving", 503
    NODE_TIMEOUT = "node_timeout", 504
    EARLIER_SERVER = "earlier_server", 409
    NODE_MESSAGE_REFUSED = "node_message_refused", 502
    NOT_ON_RAY = "not_on_ray", 409
    RAY_NOT_INSTALLED = "ray_not_installed", 500
    RAY_UNREACHABLE = "ray_unreachable", 503
    RAY_VERSION_DIFFERS = "ray_version_differs", 502
    RAY_REFUSED = "ray_refused", 502

    # Client and command line
    BAD_ENDPOINT = "bad_endpoint", 400
    NO_SERVER = "no_server", 503
    NOT_OUR_SERVER = "not_our_server", 502
    SERVER_GONE = "server_gone", 503
    SERVER_TIMEOUT = "server_timeout", 504
    SERVER_UNREACHABLE = "server_unreachable", 503
    SERVER_ERROR = "server_error", 0
    SERVER_FAILED = "server_failed", 500
    SERVER_LIVES = "server_lives", 504
    MANAGED_SERVER = "managed_server", 409
    UNRECOGNIZED_TYPE = "unrecognized_type", 400
    UNRECOGNIZED_ABILITY = "unrecognized_ability", 400
    NO_MODEL_READY = "no_model_ready", 409
