"""What C++ and Python share. `make format` writes it from native/include/atlas-abi.h, native/core/base/atlas-facts.h and native/include/atlas-settings.def."""

# ruff: noqa: E501
# fmt: off
from typing import Any

ABI_VERSION = 11
OK = 1
STREAM_END = 2
FAILED = -1
LOG_DEBUG = 1
LOG_INFO = 2
LOG_WARN = 3
LOG_ERROR = 4
QUERY_STATUS = 1
QUERY_SETTINGS = 2
QUERY_MEMORY_EVENTS = 3
QUERY_MEMORY_ORDER = 4
QUERY_SESSIONS = 5
QUERY_SESSION_EDIT = 6
QUERY_SETTINGS_CHANGE = 7
QUERY_REQUEST_SCHEMA = 8
QUERY_CONVERSATIONS = 9
QUERY_METRICS = 10
QUERY_REQUESTS = 11
QUERY_HOOKS = 12
QUERY_HOOKS_ENABLE = 13
QUERY_HOOK_TABLES = 14
QUERY_ASK = 15
QUERY_SEAL = 16
QUERY_UNSEAL = 17
QUERY_BLOCK_CHANGES = 18
QUERY_RECORDS = 19
QUERY_TIERS = 20
SEALED_EXTRA = 80
MAX_EVENTS = 1024
MAX_BLOCK_CHANGES = 256
MAX_SESSIONS = 1000
MAX_CONVERSATIONS = 64
MAX_REQUESTS = 256
CALL_HISTORY = 1
CALL_RECORD = 2
CALL_STACKS = 3
CALL_SYNC = 4
CALL_RESPONSE_ITEMS = 5
CALL_KEEP_RESPONSE = 6
CALL_KEEP_COMPLETION = 7
HOOK_REQUEST = 0
HOOK_PROMPT = 1
HOOK_RESPONSE = 2
HOOK_STREAM_CHUNK = 3
HOOK_FINISHED = 4
HOOK_FAILED = 5
HOOK_AUTHENTICATE = 6
HOOK_TIER = 7
QUEUE_REQUESTS = 0
QUEUE_TIERS = 1
MAX_TIER_BYTES = 536870912
MAX_DEADLINE_MS = 60000
MAX_BATCH = 256
MAX_ASK_MS = 86400000
STEP_BEGIN = 0
STEP_PASS = 1
STEP_MODIFY = 2
STEP_REJECT = 3
STEP_RESPOND = 4
STEP_FAIL = 5
EVENT_TOUCHED = 0
EVENT_EVICTED = 1
EVENT_SAVED = 2
KIND_BLOCK = 0
KIND_TAIL = 1
KIND_CHECKPOINT = 2
STRATEGY_LRU = 0
STRATEGY_LFU = 1
STRATEGY_ADAPTIVE = 2
ID_PATTERN = '^[A-Za-z0-9._:-]{1,128}$'
ID_RULE = '1 to 128 characters of A-Z a-z 0-9 . _ : -'
MAX_ID_LENGTH = 128
STRATEGIES = ('lru', 'lfu', 'adaptive')
TENANT_DIGITS = 16
PRIORITY_BITS = 62
MAX_LFU_TOUCHES = 16
ERROR_TYPES = ((400, 'validation_error'), (401, 'authentication_error'), (403, 'authentication_error'), (404, 'not_found'), (429, 'rate_limit_error'), (500, 'server_error'), (503, 'service_unavailable'))
FIRST_PLUGIN_LAYER = 4
MAX_LAYER = 10
ROUTE_STATUS = '/v1/atlas/status'
ROUTE_METRICS = '/v1/atlas/metrics/prometheus'
ROUTE_FLUSH = '/v1/atlas/memory/flush'
MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
MAX_FLUSH_S = 3600
TENANT_STATUS = ('initialized', 'context_pool_size', 'uptime_seconds', 'model', 'server_version', 'memory_persistence')

EVENT_LAYOUT = '=QQqqQdBBBBI'
EVENT_FIELDS = ('key', 'parent', 'now', 'priority', 'size', 'seconds', 'what', 'layer', 'kind', 'strategy', 'n_tokens')

SETTINGS: tuple[dict[str, Any], ...] = (
    {'name': 'enabled', 'type': 'bool', 'flag': '--atlas-enabled', 'env': 'ATLAS_ENABLED', 'default': True, 'reload': 'restart', 'secret': False, 'help': 'whether ATLAS takes part at all; off: stock behaviour, and no Python in the process'},
    {'name': 'memory_save_path', 'type': 'string', 'flag': '--atlas-memory-path', 'env': 'ATLAS_MEMORY_PATH', 'default': '', 'reload': 'restart', 'secret': False, 'help': 'directory for everything that survives a restart; empty: nothing is written to disk'},
    {'name': 'enable_memory_persistence', 'type': 'bool', 'flag': '--atlas-memory-persistence', 'env': 'ATLAS_MEMORY_PERSISTENCE', 'default': True, 'reload': 'restart', 'secret': False, 'help': 'whether the memory path is used; off: as if it were empty'},
    {'name': 'encryption_key_file', 'type': 'string', 'flag': '--atlas-encryption-key-file', 'env': 'ATLAS_ENCRYPTION_KEY_FILE', 'default': '', 'reload': 'restart', 'secret': False, 'help': 'file with the key by which what is kept under the memory path is encrypted: 32 random bytes, or these as hexadecimal digits or base64; empty: none'},
    {'name': 'encryption_key_command', 'type': 'string', 'flag': '--atlas-encryption-key-command', 'env': 'ATLAS_ENCRYPTION_KEY_COMMAND', 'default': '', 'reload': 'restart', 'secret': True, 'help': 'line of the shell that prints that key, run once at the start; empty: none'},
    {'name': 'shared_secret_file', 'type': 'string', 'flag': '--atlas-shared-secret-file', 'env': 'ATLAS_SHARED_SECRET_FILE', 'default': '', 'reload': 'restart', 'secret': False, 'help': 'file with a secret that all servers of a fleet have, as a key: by it API keys name the same tenants on all, and what they share is encrypted; empty: none'},
    {'name': 'enable_auto_memory', 'type': 'bool', 'flag': '--atlas-auto', 'env': 'ATLAS_AUTO', 'default': True, 'reload': 'restart', 'secret': False, 'help': "whether conversations' KV is kept under the memory path and found again by its tokens"},
    {'name': 'l1_cache_size', 'type': 'int', 'flag': '--atlas-l1-cache-size', 'env': 'ATLAS_L1_CACHE_SIZE', 'default': 0, 'reload': 'restart', 'secret': False, 'help': 'bytes of KV kept in RAM; 0: what --cache-ram says, which then has no cache of its own', 'min': 0, 'max': 1125899906842624},
    {'name': 'l2_cache_size', 'type': 'int', 'flag': '--atlas-l2-cache-size', 'env': 'ATLAS_L2_CACHE_SIZE', 'default': 17179869184, 'reload': 'restart', 'secret': False, 'help': 'bytes of KV kept on disk under the memory path', 'min': 0, 'max': 1125899906842624},
    {'name': 'l3_cache_size', 'type': 'int', 'flag': '--atlas-l3-cache-size', 'env': 'ATLAS_L3_CACHE_SIZE', 'default': 0, 'reload': 'restart', 'secret': False, 'help': 'bytes of KV for a third tier: the number is kept and does nothing, as what servers share has a limit of its own', 'min': 0, 'max': 1125899906842624},
    {'name': 'shared_url', 'type': 'string', 'flag': '--atlas-shared-url', 'env': 'ATLAS_SHARED_URL', 'default': '', 'reload': 'restart', 'secret': True, 'help': 'where servers share KV and sessions: valkey://HOST:6379 (or redis://, valkeys:// with TLS), file:///DIRECTORY that all of them mount, or s3://BUCKET/PREFIX; empty: nothing is shared'},
    {'name': 'shared_ttl_s', 'type': 'int', 'flag': '--atlas-shared-ttl', 'env': 'ATLAS_SHARED_TTL', 'default': 604800, 'reload': 'restart', 'secret': False, 'help': 'seconds after its last use that KV stays where it is shared', 'min': 60, 'max': 315360000},
    {'name': 'shared_timeout_ms', 'type': 'float', 'flag': '--atlas-shared-timeout-ms', 'env': 'ATLAS_SHARED_TIMEOUT_MS', 'default': 2000.0, 'reload': 'restart', 'secret': False, 'help': 'milliseconds that a request waits for shared KV at most, and no longer than half of what it may save', 'min': 1, 'max': 60000},
    {'name': 'shared_connections', 'type': 'int', 'flag': '--atlas-shared-connections', 'env': 'ATLAS_SHARED_CONNECTIONS', 'default': 4, 'reload': 'restart', 'secret': False, 'help': 'connections by which shared KV is read', 'min': 1, 'max': 64},
    {'name': 'shared_write', 'type': 'string', 'flag': '--atlas-shared-write', 'env': 'ATLAS_SHARED_WRITE', 'default': 'all', 'reload': 'restart', 'secret': False, 'help': 'which KV is shared: all, reused (what is used a second time, and that of sessions) or none'},
    {'name': 'shared_compression', 'type': 'string', 'flag': '--atlas-shared-compression', 'env': 'ATLAS_SHARED_COMPRESSION', 'default': 'none', 'reload': 'restart', 'secret': False, 'help': 'how shared KV is compressed before it is sent: none or zstd; each server reads both'},
    {'name': 'shared_queue_bytes', 'type': 'int', 'flag': '--atlas-shared-queue-bytes', 'env': 'ATLAS_SHARED_QUEUE_BYTES', 'default': 268435456, 'reload': 'restart', 'secret': False, 'help': 'bytes of KV that wait to be shared; what is beyond is not, unless it is used again', 'min': 1048576, 'max': 1125899906842624},
    {'name': 'kv_events', 'type': 'string', 'flag': '--atlas-kv-events', 'env': 'ATLAS_KV_EVENTS', 'default': '', 'reload': 'restart', 'secret': False, 'help': "where routers subscribe to KV events in vLLM's format, as tcp://127.0.0.1:5557; whoever reaches it reads the tokens of conversations; empty: nothing is told"},
    {'name': 'kv_events_replay', 'type': 'string', 'flag': '--atlas-kv-events-replay', 'env': 'ATLAS_KV_EVENTS_REPLAY', 'default': '', 'reload': 'restart', 'secret': False, 'help': 'where they ask for events that they missed, as tcp://127.0.0.1:5558; empty: nowhere'},
    {'name': 'kv_events_topic', 'type': 'string', 'flag': '--atlas-kv-events-topic', 'env': 'ATLAS_KV_EVENTS_TOPIC', 'default': '', 'reload': 'restart', 'secret': False, 'help': "what each event's message begins with, by which they may subscribe"},
    {'name': 'kv_events_format', 'type': 'string', 'flag': '--atlas-kv-events-format', 'env': 'ATLAS_KV_EVENTS_FORMAT', 'default': 'maps', 'reload': 'restart', 'secret': False, 'help': 'how events are written: maps (each event is one, as vllm-router reads them), arrays, or all-maps (the whole message is one)'},
    {'name': 'index_size', 'type': 'int', 'flag': '--atlas-index-size', 'env': 'ATLAS_INDEX_SIZE', 'default': 268435456, 'reload': 'restart', 'secret': False, 'help': 'bytes of RAM for the index of all KV that is kept, about 1.5 KiB a block; what is beyond is given up', 'min': 1048576, 'max': 1125899906842624},
    {'name': 'preload_size', 'type': 'int', 'flag': '--atlas-preload-size', 'env': 'ATLAS_PRELOAD_SIZE', 'default': 1073741824, 'reload': 'restart', 'secret': False, 'help': 'bytes of KV read from disk into RAM after a start, what was used last first; half of layer 1 at most; 0: nothing', 'min': 0, 'max': 1125899906842624},
    {'name': 'auto_save_interval_s', 'type': 'float', 'flag': '--atlas-auto-save-interval', 'env': 'ATLAS_AUTO_SAVE_INTERVAL', 'default': 0.0, 'reload': 'restart', 'secret': False, 'help': 'seconds that what the next turn replaces may wait for the disk, so that it is written once; 0: everything at once', 'min': 0, 'max': 86400},
    {'name': 'session_ttl_s', 'type': 'float', 'flag': '--atlas-session-ttl', 'env': 'ATLAS_SESSION_TTL', 'default': 86400.0, 'reload': 'live', 'secret': False, 'help': 'seconds after its last use that a session is forgotten, and its KV given up like any other; 0: never', 'min': 0, 'max': 315360000},
    {'name': 'max_sessions', 'type': 'int', 'flag': '--atlas-max-sessions', 'env': 'ATLAS_MAX_SESSIONS', 'default': 10000, 'reload': 'live', 'secret': False, 'help': 'sessions kept; beyond it those idle longest end; 0: no limit', 'min': 0, 'max': 1000000},
    {'name': 'record_conversations', 'type': 'bool', 'flag': '--atlas-record-conversations', 'env': 'ATLAS_RECORD_CONVERSATIONS', 'default': True, 'reload': 'live', 'secret': False, 'help': 'whether the messages that clients send whole, as the web UI does, are kept with the session they name'},
    {'name': 'store_responses', 'type': 'bool', 'flag': '--atlas-store-responses', 'env': 'ATLAS_STORE_RESPONSES', 'default': True, 'reload': 'live', 'secret': False, 'help': 'whether responses of /v1/responses are kept whose requests do not say "store": false, and chat completions whose requests say "store": true'},
    {'name': 'response_ttl_s', 'type': 'float', 'flag': '--atlas-response-ttl', 'env': 'ATLAS_RESPONSE_TTL', 'default': 2592000.0, 'reload': 'live', 'secret': False, 'help': 'seconds that a response, or a chat completion, is kept; 0: until it is deleted', 'min': 0, 'max': 315360000},
    {'name': 'max_responses', 'type': 'int', 'flag': '--atlas-max-responses', 'env': 'ATLAS_MAX_RESPONSES', 'default': 100000, 'reload': 'live', 'secret': False, 'help': 'responses and chat completions kept; beyond it the oldest are deleted; 0: no limit', 'min': 0, 'max': 100000000},
    {'name': 'strict_schemas', 'type': 'bool', 'flag': '--atlas-strict-schemas', 'env': 'ATLAS_STRICT_SCHEMAS', 'default': False, 'reload': 'live', 'secret': False, 'help': 'whether answers of /v1/chat/completions and /v1/messages have all fields that the schemas of OpenAI and Anthropic require, and requests have to, too'},
    {'name': 'background_running', 'type': 'int', 'flag': '--atlas-background-running', 'env': 'ATLAS_BACKGROUND_RUNNING', 'default': 2, 'reload': 'live', 'secret': False, 'help': 'responses with "background": true that are made at once; the others wait', 'min': 1, 'max': 1024},
    {'name': 'background_waiting', 'type': 'int', 'flag': '--atlas-background-waiting', 'env': 'ATLAS_BACKGROUND_WAITING', 'default': 100, 'reload': 'live', 'secret': False, 'help': 'responses in the background that may wait; further ones are refused with 429', 'min': 0, 'max': 100000},
    {'name': 'normalize_prompts', 'type': 'bool', 'flag': '--atlas-normalize-prompts', 'env': 'ATLAS_NORMALIZE_PROMPTS', 'default': True, 'reload': 'live', 'secret': False, 'help': 'whether hashes in the billing line of Claude Code are made equal, and tool calls put as the model wrote them, to be reused'},
    {'name': 'block_tokens', 'type': 'int', 'flag': '--atlas-block-tokens', 'env': 'ATLAS_BLOCK_TOKENS', 'default': 256, 'reload': 'restart', 'secret': False, 'help': 'tokens in a block, the unit in which KV is kept; blocks of another size are not found', 'min': 16, 'max': 1024},
    {'name': 'max_state_bytes', 'type': 'int', 'flag': '--atlas-max-state-bytes', 'env': 'ATLAS_MAX_STATE_BYTES', 'default': 8388608, 'reload': 'live', 'secret': False, 'help': 'largest JSON state of one saved context, in bytes as serialised; a larger one is answered with 413', 'min': 1024, 'max': 1073741824},
    {'name': 'max_concurrent_atlas_requests', 'type': 'int', 'flag': '--atlas-max-concurrent', 'env': 'ATLAS_MAX_CONCURRENT', 'default': 32, 'reload': 'live', 'secret': False, 'help': 'completions with an atlas object that may be in progress or waiting; one more is answered with 429', 'min': 1, 'max': 1024},
    {'name': 'context_pool_size', 'type': 'int', 'flag': '--atlas-context-pool-size', 'env': 'ATLAS_CONTEXT_POOL_SIZE', 'default': 0, 'reload': 'restart', 'secret': False, 'help': 'contexts that requests share, no more than there are slots; 0: as many', 'min': 0, 'max': 1024},
    {'name': 'pool_timeout_ms', 'type': 'float', 'flag': '--atlas-pool-timeout-ms', 'env': 'ATLAS_POOL_TIMEOUT_MS', 'default': 30000.0, 'reload': 'live', 'secret': False, 'help': 'milliseconds that a request waits for a context', 'min': 0, 'max': 3600000},
    {'name': 'api_latency_budget_ms', 'type': 'float', 'flag': '--atlas-latency-budget-ms', 'env': 'ATLAS_LATENCY_BUDGET_MS', 'default': 5.0, 'reload': 'live', 'secret': False, 'help': 'milliseconds that ATLAS may add to a request; longer ones are counted', 'min': 0.001, 'max': 60000},
    {'name': 'key_requests_per_s', 'type': 'float', 'flag': '--atlas-key-requests-per-s', 'env': 'ATLAS_KEY_REQUESTS_PER_S', 'default': 0.0, 'reload': 'live', 'secret': False, 'help': 'completions a second that one API key may begin; 0: no limit', 'min': 0, 'max': 1000000},
    {'name': 'key_tokens_per_min', 'type': 'float', 'flag': '--atlas-key-tokens-per-min', 'env': 'ATLAS_KEY_TOKENS_PER_MIN', 'default': 0.0, 'reload': 'live', 'secret': False, 'help': 'tokens a minute that one API key may use; 0: no limit', 'min': 0, 'max': 1000000000},
    {'name': 'session_requests_per_s', 'type': 'float', 'flag': '--atlas-session-requests-per-s', 'env': 'ATLAS_SESSION_REQUESTS_PER_S', 'default': 0.0, 'reload': 'live', 'secret': False, 'help': 'completions a second that one session may begin; 0: no limit', 'min': 0, 'max': 1000000},
    {'name': 'session_tokens_per_min', 'type': 'float', 'flag': '--atlas-session-tokens-per-min', 'env': 'ATLAS_SESSION_TOKENS_PER_MIN', 'default': 0.0, 'reload': 'live', 'secret': False, 'help': 'tokens a minute that one session may use; 0: no limit', 'min': 0, 'max': 1000000000},
    {'name': 'admin_key', 'type': 'string', 'flag': '--atlas-admin-key', 'env': 'ATLAS_ADMIN_KEY', 'default': '', 'reload': 'restart', 'secret': True, 'help': 'API key that sees what belongs to all keys and may change settings; empty: there is none'},
    {'name': 'share_between_keys', 'type': 'bool', 'flag': '--atlas-share-between-keys', 'env': 'ATLAS_SHARE_BETWEEN_KEYS', 'default': False, 'reload': 'restart', 'secret': False, 'help': "whether clients with different API keys find each other's KV blocks and sessions"},
    {'name': 'key_calls_per_s', 'type': 'float', 'flag': '--atlas-key-calls-per-s', 'env': 'ATLAS_KEY_CALLS_PER_S', 'default': 0.0, 'reload': 'live', 'secret': False, 'help': "requests under /v1/atlas a second that one API key may make, but the admin's; 0: no limit", 'min': 0, 'max': 1000000},
    {'name': 'max_calls_per_key', 'type': 'int', 'flag': '--atlas-max-calls-per-key', 'env': 'ATLAS_MAX_CALLS_PER_KEY', 'default': 32, 'reload': 'live', 'secret': False, 'help': "requests under /v1/atlas that one API key, but the admin's, may have in progress, streams too; one more is answered with 429", 'min': 1, 'max': 1024},
    {'name': 'allowed_hosts', 'type': 'list', 'flag': '--atlas-allowed-hosts', 'env': 'ATLAS_ALLOWED_HOSTS', 'default': [], 'reload': 'restart', 'secret': False, 'help': 'names by which clients may call the server, besides localhost, separated by commas; *: any; empty: any but on loopback without a key'},
    {'name': 'enable_metrics_collection', 'type': 'bool', 'flag': '--atlas-metrics', 'env': 'ATLAS_METRICS', 'default': True, 'reload': 'restart', 'secret': False, 'help': 'whether requests and times are counted; off: nothing is recorded, and /v1/atlas/metrics answers 503'},
    {'name': 'metrics_update_interval_ms', 'type': 'int', 'flag': '--atlas-metrics-interval', 'env': 'ATLAS_METRICS_INTERVAL', 'default': 1000, 'reload': 'live', 'secret': False, 'help': 'milliseconds from one sample of the metrics to the next, in their history and their stream', 'min': 10, 'max': 3600000},
    {'name': 'metrics_history_size', 'type': 'int', 'flag': '--atlas-metrics-history-size', 'env': 'ATLAS_METRICS_HISTORY_SIZE', 'default': 100, 'reload': 'live', 'secret': False, 'help': 'samples of the metrics that are kept', 'min': 0, 'max': 100000},
    {'name': 'plugins', 'type': 'list', 'flag': '--atlas-plugin', 'env': 'ATLAS_PLUGINS', 'default': [], 'reload': 'restart', 'secret': False, 'help': 'plugins to load, separated by commas: module names or paths of .py files; no:NAME turns one off'},
    {'name': 'plugins_dir', 'type': 'string', 'flag': '--atlas-plugins-dir', 'env': 'ATLAS_PLUGINS_DIR', 'default': '', 'reload': 'restart', 'secret': False, 'help': 'directory whose .py files are loaded as plugins'},
    {'name': 'python_home', 'type': 'string', 'flag': '--atlas-python-home', 'env': 'ATLAS_PYTHON_HOME', 'default': '', 'reload': 'restart', 'secret': False, 'help': 'Python environment to run in (the directory that holds bin/python); empty: VIRTUAL_ENV, else atlas-python beside the library, else that of the build'},
    {'name': 'require_python', 'type': 'bool', 'flag': '--atlas-require-python', 'env': 'ATLAS_REQUIRE_PYTHON', 'default': False, 'reload': 'restart', 'secret': False, 'help': 'whether the server refuses to start when Python or a plugin that was asked for by name does not'},
    {'name': 'python_patience_ms', 'type': 'int', 'flag': '--atlas-python-patience-ms', 'env': 'ATLAS_PYTHON_PATIENCE_MS', 'default': 50, 'reload': 'live', 'secret': False, 'help': 'milliseconds that the status and metrics wait for what Python adds, before they go out without it', 'min': 1, 'max': 3600000},
    {'name': 'reload_plugins', 'type': 'bool', 'flag': '--atlas-reload', 'env': 'ATLAS_RELOAD', 'default': False, 'reload': 'restart', 'secret': False, 'help': 'whether plugins from files are loaded anew when a file changes, comes or goes'},
    {'name': 'hook_deadline_ms', 'type': 'int', 'flag': '--atlas-hook-deadline-ms', 'env': 'ATLAS_HOOK_DEADLINE_MS', 'default': 50, 'reload': 'restart', 'secret': False, 'help': "milliseconds that a request waits for a plugin's hook, where the plugin names no deadline", 'min': 1, 'max': 60000},
    {'name': 'hook_breaches', 'type': 'int', 'flag': '--atlas-hook-breaches', 'env': 'ATLAS_HOOK_BREACHES', 'default': 5, 'reload': 'live', 'secret': False, 'help': "deadlines that a plugin's hook may miss in a row before it is turned off", 'min': 1, 'max': 1000},
    {'name': 'hook_workers', 'type': 'int', 'flag': '--atlas-hook-workers', 'env': 'ATLAS_HOOK_WORKERS', 'default': 16, 'reload': 'live', 'secret': False, 'help': "Python threads that call plugins' hooks at once, besides those that are over a deadline", 'min': 1, 'max': 128},
    {'name': 'plugin_calls', 'type': 'int', 'flag': '--atlas-plugin-calls', 'env': 'ATLAS_PLUGIN_CALLS', 'default': 4, 'reload': 'live', 'secret': False, 'help': 'requests that plugins may have with the model at once; the others wait', 'min': 1, 'max': 1024},
    {'name': 'shutdown_timeout_s', 'type': 'float', 'flag': '--atlas-shutdown-timeout', 'env': 'ATLAS_SHUTDOWN_TIMEOUT', 'default': 10.0, 'reload': 'live', 'secret': False, 'help': 'seconds that running Python calls and shutdown hooks are waited for when the server stops', 'min': 0.1, 'max': 3600},
    {'name': 'log_level', 'type': 'level', 'flag': '--atlas-log-level', 'env': 'ATLAS_LOG_LEVEL', 'default': 'info', 'reload': 'live', 'secret': False, 'help': 'least severe [ATLAS] line that is logged: debug, info, warn or error'},
    {'name': 'log_format', 'type': 'format', 'flag': '--atlas-log-format', 'env': 'ATLAS_LOG_FORMAT', 'default': 'text', 'reload': 'live', 'secret': False, 'help': "text: [ATLAS] lines as llama-server's own; json: one JSON object a line"},
    {'name': 'slow_request_ms', 'type': 'float', 'flag': '--atlas-slow-request-ms', 'env': 'ATLAS_SLOW_REQUEST_MS', 'default': 0.0, 'reload': 'live', 'secret': False, 'help': 'milliseconds after which a request that ended is logged as slow, with what took how long; 0: never', 'min': 0, 'max': 86400000},
    {'name': 'verbose_logging', 'type': 'bool', 'flag': '--atlas-verbose', 'env': 'ATLAS_VERBOSE', 'default': False, 'reload': 'live', 'secret': False, 'help': 'same as --atlas-log-level debug'},
)
