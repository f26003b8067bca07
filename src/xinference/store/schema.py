"""The database tables, by the schema version that added them."""

SCHEMA_1 = """
CREATE TABLE deployments (
    uid TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    wanted INTEGER NOT NULL DEFAULT 1,
    problem TEXT,
    created REAL NOT NULL
) STRICT;
CREATE TABLE replicas (
    replica_id TEXT PRIMARY KEY,
    uid TEXT NOT NULL REFERENCES deployments(uid) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    started REAL NOT NULL
) STRICT;
CREATE INDEX replicas_of ON replicas(uid);
CREATE TABLE events (
    event_id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    event_ts REAL NOT NULL,
    event_type TEXT NOT NULL,
    stage TEXT NOT NULL,
    event_content TEXT NOT NULL
) STRICT;
CREATE INDEX events_of ON events(uid, event_id);
"""
SCHEMA_2 = """
CREATE TABLE measurements (
    version_id TEXT NOT NULL,
    engine TEXT NOT NULL,
    context_length INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    measured_bytes INTEGER NOT NULL,
    estimated_bytes INTEGER NOT NULL,
    gpu_bytes INTEGER,
    measured_at REAL NOT NULL,
    PRIMARY KEY (version_id, engine, context_length, slots)
) STRICT;
"""
SCHEMA_3 = """
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    models TEXT,
    expires REAL,
    requests_per_minute INTEGER,
    tokens_per_minute INTEGER,
    created REAL NOT NULL,
    last_used REAL,
    revoked REAL
) STRICT;
"""
SCHEMA_4 = "ALTER TABLE keys ADD COLUMN requests_in_flight INTEGER;"
SCHEMA_5 = """
ALTER TABLE deployments ADD COLUMN ran INTEGER NOT NULL DEFAULT 1;
ALTER TABLE deployments ADD COLUMN unloaded INTEGER NOT NULL DEFAULT 0;
CREATE TABLE launches (
    launch_id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    request TEXT NOT NULL,
    created REAL NOT NULL,
    ready REAL,
    ended REAL,
    problem TEXT
) STRICT;
CREATE INDEX launches_of ON launches(uid, launch_id);
"""
SCHEMA_6 = """
ALTER TABLE keys ADD COLUMN max_output_tokens INTEGER;
ALTER TABLE keys ADD COLUMN max_request_seconds REAL;
"""
#: The columns of the two histograms have fixed numbers: other buckets need another schema.
SCHEMA_7 = f"""
CREATE TABLE usage_minutes (
    minute INTEGER NOT NULL,
    model TEXT NOT NULL,
    key_id TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    seconds REAL NOT NULL,
    first_seconds REAL NOT NULL,
    each_seconds REAL NOT NULL,
    {", ".join(f"first_{n} INTEGER NOT NULL" for n in range(19))},
    {", ".join(f"each_{n} INTEGER NOT NULL" for n in range(14))}
) STRICT;
CREATE INDEX usage_of ON usage_minutes(minute);
"""
#: The node of a replica; NULL: the server's own machine.
SCHEMA_8 = "ALTER TABLE replicas ADD COLUMN node_id TEXT;"
SCHEMA_9 = """
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    key_id TEXT NOT NULL,
    created REAL NOT NULL,
    last_used REAL NOT NULL
) STRICT;
"""
SCHEMA_10 = "ALTER TABLE keys ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal';"
#: Labels are JSON. `key_hash` is of the node's public key. A row of a removed node stays: its id is never used again.
SCHEMA_11 = """
CREATE TABLE cluster_nodes (
    node_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    labels TEXT NOT NULL,
    drained INTEGER NOT NULL DEFAULT 0,
    added REAL NOT NULL,
    removed REAL
) STRICT;
CREATE TABLE join_tokens (
    token_id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    expires REAL NOT NULL,
    uses_left INTEGER,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE cluster_values (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
"""
#: The nodes of a replica after `node_id`, by rank, separated by commas; NULL: it has none.
SCHEMA_12 = "ALTER TABLE replicas ADD COLUMN further_nodes TEXT;"
#: The additions of each schema version; a file of version n has the first n.
SCHEMAS = (
    *(SCHEMA_1, SCHEMA_2, SCHEMA_3, SCHEMA_4, SCHEMA_5, SCHEMA_6),
    *(SCHEMA_7, SCHEMA_8, SCHEMA_9, SCHEMA_10, SCHEMA_11, SCHEMA_12),
)
SCHEMA_VERSION = len(SCHEMAS)
