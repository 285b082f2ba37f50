// What the server says both in C++ and in Python, in one table. `make format` writes atlas_plugin/facts.py from it, from
// the numbers of atlas-abi.h and from atlas-settings.def (tools/facts); `make check` fails while that is stale.
//
// One #define a fact: a number, a text, or rows for X. A list's rows have one value or several.
#ifndef ATLAS_FACTS_H
#define ATLAS_FACTS_H

// Of sessions and of saved contexts; is_valid_id() checks the same. The rule is for messages.
#define ATLAS_ID_PATTERN    "^[A-Za-z0-9._:-]{1,128}$"
#define ATLAS_ID_RULE       "1 to 128 characters of A-Z a-z 0-9 . _ : -"
#define ATLAS_MAX_ID_LENGTH 128

// `cache_strategy`, in the order of ATLAS_STRATEGY_… in atlas-abi.h.
#define ATLAS_STRATEGIES(X)                                                                                            \
    X("lru")                                                                                                           \
    X("lfu")                                                                                                           \
    X("adaptive")

// Of a tenant's name, which is hexadecimal.
#define ATLAS_TENANT_DIGITS 16

// Priorities lie between -2^62 and 2^62: the memory's clock begins at 2^62 and is added to them.
#define ATLAS_PRIORITY_BITS 62

// Touches that count for the strategy lfu; more would outlast any ageing.
#define ATLAS_MAX_LFU_TOUCHES 16

// The type in an error's answer, by HTTP status. Any other below 500 is a validation_error, all else a server_error.
#define ATLAS_ERROR_TYPES(X)                                                                                           \
    X(400, "validation_error")                                                                                         \
    X(401, "authentication_error")                                                                                     \
    X(403, "authentication_error")                                                                                     \
    X(404, "not_found")                                                                                                \
    X(429, "rate_limit_error")                                                                                         \
    X(500, "server_error")                                                                                             \
    X(503, "service_unavailable")

// Layers of the memory: 1 is RAM, 2 the disk, 3 what servers share; plugins bring those from the first to the last.
#define ATLAS_FIRST_PLUGIN_LAYER 4
#define ATLAS_MAX_LAYER          10

// What C++ answers without Python, or with it where it comes in time.
#define ATLAS_ROUTE_STATUS  "/v1/atlas/status"
#define ATLAS_ROUTE_METRICS "/v1/atlas/metrics/prometheus"
#define ATLAS_ROUTE_FLUSH   "/v1/atlas/memory/flush"

// Of the metadata of responses and chat completions, as OpenAI's API has it: pairs, and characters of a key and of a value.
#define ATLAS_MAX_METADATA       16
#define ATLAS_MAX_METADATA_KEY   64
#define ATLAS_MAX_METADATA_VALUE 512

// The largest timeout_s of a flush, in seconds.
#define ATLAS_MAX_FLUSH_S 3600

// Of the status, what a tenant may see as it is.
#define ATLAS_TENANT_STATUS(X)                                                                                         \
    X("initialized")                                                                                                   \
    X("context_pool_size")                                                                                             \
    X("uptime_seconds")                                                                                                \
    X("model")                                                                                                         \
    X("server_version")                                                                                                \
    X("memory_persistence")

#endif // ATLAS_FACTS_H
