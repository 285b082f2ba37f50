/* atlas-abi.h: the only contract between the C++ host and the embedded Python.
 *
 * Conventions, by number, as comments elsewhere cite them:
 *
 *  1. Status. A function that can fail returns int32_t and ATLAS_OK (1) means success. Zero never means success:
 *     cffi returns zero when the interpreter is missing, when a thread could not be attached and when Python raised.
 *  2. Text is UTF-8 in an atlas_slice: a pointer and a size in bytes, no terminating zero. A null pointer goes only
 *     with size 0. Sizes are at most PTRDIFF_MAX.
 *  3. Ownership. Slices and structs passed to a function are borrowed and valid until it returns; the callee copies
 *     what it keeps. Nothing allocated on one side is freed on the other: results travel through a sink (4).
 *  4. A sink is an opaque host object that a callee writes its result to, through the host functions that take one.
 *     It is valid until the call that received it returns, and is used by one thread only.
 *  5. Threads. The host calls Python from any thread, several at once; Python takes the GIL itself. Host functions
 *     may be called from any Python thread, never block on Python, and may be called with the GIL held.
 *     The token loop thread calls nothing in this header.
 *  6. Exceptions cross in neither direction: Python's become a status, C++'s do not leave the host. A sink that could not
 *     take all that was written to it, for want of memory, makes a failure of the call that it belongs to.
 *  7. Life. A process may have several hosts, with an application in Python each; there is one interpreter. For each
 *     host atlas_python_start once, which numbers the application; then any number of calls with that number; then
 *     atlas_python_stop once. After stop was called a host makes no further call, and its query function fails; the log
 *     function drops what still arrives when all hosts have stopped. The interpreter is never finalised: a call after
 *     Py_FinalizeEx is a SIGSEGV, and threads may live until the process ends. A host destroys nothing that its
 *     functions use.
 *  8. Version. Both sides compare abi_version with their own ATLAS_ABI_VERSION and refuse to work when it differs.
 *     Any change of this header raises it.
 *
 * The part between the two markers is C as cffi's parser understands it: declarations and integer constants only.
 */
#ifndef ATLAS_ABI_H
#define ATLAS_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: types begin */

#define ATLAS_ABI_VERSION 11

#define ATLAS_OK         1  /* done */
#define ATLAS_STREAM_END 2  /* atlas_python_stream_next: done, and nothing follows */
#define ATLAS_FAILED     -1  /* the reason is in the sink or in the log */

#define ATLAS_LOG_DEBUG 1
#define ATLAS_LOG_INFO  2
#define ATLAS_LOG_WARN  3
#define ATLAS_LOG_ERROR 4

/* What atlas_host_api.query answers; JSON unless it says otherwise. `argument` is empty unless it says otherwise.
 *
 * STATUS: an object with initialized, model, context_pool_size, uptime_seconds and the like, live; notices; and in_effect, what
 *   the settings come to: {"saving_off", "conversations_off", "metrics_off": why, or null; "log_level"; "encrypted": whether
 *   what is kept is}.
 * SETTINGS: an array, one object a setting, with name, flag, env, type, value, default, origin, reload, secret, help and,
 *   where there are limits, min and max.
 * MEMORY_EVENTS: takes at most ATLAS_MAX_EVENTS off the queue; an array of atlas_memory_event. One thread at a time.
 *   argument: empty, or "saved": from now until the next call without it there are SAVED events, too.
 * MEMORY_ORDER: sets priorities. argument: int64_t layer (1 or 2), then an int64_t for each TOUCHED event that the last
 *   MEMORY_EVENTS answered, in that order; an entry that was touched again since keeps what it has. Answers nothing.
 * BLOCK_CHANGES: which blocks below a root came into a layer or left it since the last call, at most about ATLAS_MAX_BLOCK_CHANGES.
 *   argument: {"root": key, "from_start": bool}; answers {"anew": bool, "more": bool: ask again, "changes": [[is_stored, layer: 1 or 2,
 *   key: number, not 0, parent: number; 0 for none, [token, ...]: where it is stored], ...]}, in order. anew: what was told before is void,
 *   and all that is there follows, as from_start has it; so it is at first, for another root, and where more waited than are kept.
 *   One thread at a time.
 * SESSIONS: argument: {"since": version} or {"ids": [id, ...]}; answers {"version", "sessions": [{"session_id", "version",
 *   "tokens", "chain": [key, ...], "last_used": seconds since 1970, "pinned", "pinned_bytes", "ram_bytes", "disk_bytes"}, ...]}:
 *   those that changed after a version, the least version first, at most ATLAS_MAX_SESSIONS: ask again from the last; or those
 *   named that exist.
 * SESSION_EDIT: argument: {"action": "restore", "session_id", "tokens", "chain", "last_used", "pinned"}, or {"action":
 *   "pin" | "unpin" | "forget" | "expire", "session_id"}; answers {"found": bool} and, after forget and expire, {"bytes"}: what
 *   was removed; after a pin that is refused {"problem": text}.
 * SETTINGS_CHANGE: argument: {name: value, ...}, the values as SETTINGS shows them. All are changed, which answers
 *   {"changed": {name: value, ...}}, or none, which answers {"problems": [{"field": name, "message": text}, ...]}.
 * REQUEST_SCHEMA: answers {"request": JSON Schema of the `atlas` object of a completion, "answer": that of its answer}.
 * CONVERSATIONS: takes those off the queue that clients sent whole, with their answers; answers [{"session_id",
 *   "messages": [message, ...]}, ...], each what the session's record is to be from now on. argument: a session's id, for
 *   all of that session; or empty, for the oldest, at most ATLAS_MAX_CONVERSATIONS: ask again until there are none.
 * METRICS: answers {"families": [{"name", "type": "counter" | "gauge" | "histogram", "help", "samples": [{"labels": {name:
 *   value}, "value": number, or null for infinity} or, of a histogram, {"labels", "sum", "count", "buckets": [[upper bound, count up to it],
 *   ...]}]}]}; bounds rise, the last is null (infinity); counts are cumulative. Names are Prometheus's; those of counters
 *   end in _total.
 * REQUESTS: argument: {"since": number}; answers {"last": number of the newest, "requests": [{"number", "request_id", "route",
 *   "outcome", "atlas": bool, "tenant", "session": its hash, "session_id", "traceparent", "ended": seconds since 1970, "streamed": bool,
 *   "ms": {"total", "overhead", "wait", "queue", "restore", "prefill", "first_token", "decode"}: null where not known,
 *   "tokens": {"prompt", "reused", "answer"}, "memory": {"result", "layer", "moved"}, "degraded"}, ...]}: completions that ended
 *   after `since`, oldest first, at most ATLAS_MAX_REQUESTS. Texts are empty where there is none. 1,024 are kept: a gap in
 *   the numbers says that some are lost.
 * HOOKS: which plugins have a say in requests. argument: {"number": above 0, "hooks": [{"hook": ATLAS_HOOK_…, "plugin",
 *   "deadline_ms": 1 to ATLAS_MAX_DEADLINE_MS, "fails_closed": bool, "reads_body": bool, "batch": 1 to ATLAS_MAX_BATCH}, ...]},
 *   those of a hook in the order in which they are asked: from now on these are; answers nothing. Where none of ON_REQUEST or
 *   ON_PROMPT reads it, the body is null. Where only one hook is implemented, and not ON_STREAM_CHUNK, a request's end is told
 *   to that hook alone. Or empty: answers [{"hook": its name, "plugin",
 *   "timeouts", "unserved", "late": counts, "seconds", "is_off": bool}, ...]; tiers are among them, as hook "tier", with "tier": name.
 * TIERS: which plugins have tiers of the memory. argument: {"number": above 0, "tiers": [{"plugin", "tier": name, "layer":
 *   ATLAS_FIRST_PLUGIN_LAYER to ATLAS_MAX_LAYER, each once, "deadline_ms": 1 to ATLAS_MAX_DEADLINE_MS, "is_new": bool}, ...]}:
 *   from now on these are; answers {"is_used": bool}, false where there is no memory. Of one that is new nothing is known of
 *   what it has.
 * HOOKS_ENABLE: argument: {"plugin"}; turns its hooks and tiers on again; answers {"was_off": bool}.
 * HOOK_TABLES: answers [number, ...]: the tables that were given with HOOKS or TIERS and of which the present one is, or a
 *   call that goes on.
 * ASK: calls a route of the server's own, whatever key it would need. argument: {"method", "path", "body": text, "tenant": whose
 *   memory it uses, "is_admin": bool, "timeout_ms": 1 to ATLAS_MAX_ASK_MS}; answers {"status", "body": text}. No hook on the path
 *   of requests is asked. Blocks; a route of /v1/atlas is not left at the timeout.
 * SEAL, UNSEAL: encrypts bytes that are to be kept, and gives them back. argument: their name, a zero byte, the bytes; answers the
 *   others, of which the encrypted ones are ATLAS_SEALED_EXTRA longer. Fails where nothing is encrypted, which STATUS tells in
 *   in_effect; UNSEAL also where the bytes were not encrypted under that name by this key, or were changed. Not JSON.
 * RECORDS: small values that servers share. argument: a JSON object, and where a value is stored a line feed and the value; answers
 *   an object, a line feed, and the values one behind the other. An owner is any text, or '#' and the name that it has in the store.
 *   {"do": "state"}: {"is_on": bool}; where it is also "address", "problem" and "retry_s", null where it works. Asks nobody,
 *     as does {"do": "name", "owner"}: {"name"}.
 *   {"do": "get", "keys": [[owner, part], ...], "all": bool}: {"sizes": [bytes, ...], "damaged": index of a key, or null, "is_enough":
 *     bool}: up to the first that is not there, or with "all" null for it; up to one that is not what was stored under that key; or
 *     up to as many bytes as one answer has, which is_enough says.
 *   {"do": "create" | "replace", "keys": [[owner, part]]}: {"created": bool}: only where there is none; of replace {}.
 *   {"do": "remove", "keys"}: {}. {"do": "add_name" | "remove_name", "owner"}, to or from the names of sessions: {"name"}.
 *   {"do": "names", "after": name or "", "most": 1 to 1000}: {"names": [name, ...]}, in their order. {"do": "ping"}: {}.
 *   Each may have "is_patient": true: no request waits. Where the store fails all answer {"failure": "unreachable" | "late" | "denied" |
 *   "full" | "broken", "problem": text}; while it is known to fail only the patient ask, and those now and then. Blocks for as long
 *   as the setting shared_timeout_ms. */
#define ATLAS_QUERY_STATUS          1
#define ATLAS_QUERY_SETTINGS        2
#define ATLAS_QUERY_MEMORY_EVENTS   3
#define ATLAS_QUERY_MEMORY_ORDER    4
#define ATLAS_QUERY_SESSIONS        5
#define ATLAS_QUERY_SESSION_EDIT    6
#define ATLAS_QUERY_SETTINGS_CHANGE 7
#define ATLAS_QUERY_REQUEST_SCHEMA  8
#define ATLAS_QUERY_CONVERSATIONS   9
#define ATLAS_QUERY_METRICS         10
#define ATLAS_QUERY_REQUESTS        11
#define ATLAS_QUERY_HOOKS           12
#define ATLAS_QUERY_HOOKS_ENABLE    13
#define ATLAS_QUERY_HOOK_TABLES     14
#define ATLAS_QUERY_ASK             15
#define ATLAS_QUERY_SEAL            16
#define ATLAS_QUERY_UNSEAL          17
#define ATLAS_QUERY_BLOCK_CHANGES   18
#define ATLAS_QUERY_RECORDS         19
#define ATLAS_QUERY_TIERS           20

#define ATLAS_SEALED_EXTRA 80 /* bytes */

/* The most that one query answers. */
#define ATLAS_MAX_EVENTS        1024 /* copied while the token loop may wait */
#define ATLAS_MAX_BLOCK_CHANGES 256
#define ATLAS_MAX_SESSIONS      1000
#define ATLAS_MAX_CONVERSATIONS 64
#define ATLAS_MAX_REQUESTS      256

/* What atlas_python_call does; argument and answer are JSON. Session ids are those of the queries: TENANT/ID where there
 * are tenants.
 *
 * HISTORY: argument: {"session_id"}; answers {"messages": [message, ...], "answers": [exact, ...], "degraded": text, or null}: what
 *   the session recorded, oldest first, and why that may not be all that was recorded elsewhere. With "references", an array of ids, it is of a
 *   conversation, which has to be there, and "referenced" has its items of these ids.
 * RECORD: argument: {"session_id", "messages": [message, ...], "exact"}: puts them behind the session's record; durable when it
 *   returns. Answers {"degraded": text, or null}: why others do not have it yet.
 * STACKS: argument: {}; answers {"stacks": text}: where every Python thread is.
 * SYNC: argument: {"shared": bool} or {}; makes durable what sessions did and said so far, and with `shared` has other servers know
 *   it. Answers {}.
 * RESPONSE_ITEMS: argument: {"tenant", "response_id", "references"}; answers {"items": [item, ...], "referenced",
 *   "answers": [exact, ...], "first"}: what the response and those that it goes on from were asked and answered, oldest first, and
 *   the name of the first.
 * KEEP_RESPONSE: argument: {"tenant", "session_id", "input": [item, ...], "response", "exact", "last_event": number, or below 0}:
 *   keeps a response of /v1/responses with the items of its request, unless its `store` is false, in the place of the one that has its
 *   id, with the number of its last event where its events can be asked for; and puts items and answer behind the conversation that
 *   session_id names (null: none). Durable when it returns. Answers {"degraded": text, or null}: why it is not there, or others do not have it yet. `exact`
 *   says how the model wrote the answer, as {"bytes", "hash", "tokens", "arguments"} of atlas-exact-answers.hpp, or is null.
 * KEEP_COMPLETION: argument: {"tenant", "messages": [message, ...], "completion"}: keeps a chat completion with the messages of its
 *   request; durable when it returns. Answers {}. */
#define ATLAS_CALL_HISTORY         1
#define ATLAS_CALL_RECORD          2
#define ATLAS_CALL_STACKS          3
#define ATLAS_CALL_SYNC            4
#define ATLAS_CALL_RESPONSE_ITEMS  5
#define ATLAS_CALL_KEEP_RESPONSE   6
#define ATLAS_CALL_KEEP_COMPLETION 7

/* Where a plugin has a say in a request, and what `body` of atlas_hook_work is then. What changes it has the same form.
 *
 * REQUEST: the body of the request, JSON, before anything else reads it. PROMPT: the prompt, JSON: text, tokens, or an array of
 * prompts. RESPONSE: the whole answer, JSON. STREAM_CHUNK: {"events": [event, ...], "is_last": bool}, the next events of
 * a streamed answer; what changes it may have any number. FINISHED, FAILED: the request's record, as in
 * ATLAS_QUERY_REQUESTS; nobody waits, and it is the last of the request. AUTHENTICATE: empty; the head is {"key", "method",
 * "path", "headers"}; RESPOND, whose body is {"name": text that is not empty, "is_admin": bool}, says who sends the request.
 *
 * TIER, in a table and a queue of its own: what the memory asks of a plugin's tier. The head is {"do": "probe" | "get" | "put" |
 * "keep" | "remove", "ttl_s"}, the body keys, with newlines between; of put the value follows by hook_read. RESPOND answers: of
 * probe and keep a digit 1 or 0 for each key; of get the values in the order of the keys, up to the first that is missing, each
 * behind its size in 8 bytes, the least first; else nothing. Headers entries and bytes say what the tier has, where it tells. FAIL
 * has one line that says why. */
#define ATLAS_HOOK_REQUEST      0
#define ATLAS_HOOK_PROMPT       1
#define ATLAS_HOOK_RESPONSE     2
#define ATLAS_HOOK_STREAM_CHUNK 3
#define ATLAS_HOOK_FINISHED     4
#define ATLAS_HOOK_FAILED       5
#define ATLAS_HOOK_AUTHENTICATE 6
#define ATLAS_HOOK_TIER         7

/* The queues of calls, each with workers of its own: those of requests' hooks, and those of tiers. */
#define ATLAS_QUEUE_REQUESTS 0
#define ATLAS_QUEUE_TIERS    1

#define ATLAS_MAX_TIER_BYTES 536870912 /* of all values that a tier answers at once */

#define ATLAS_MAX_DEADLINE_MS 60000
#define ATLAS_MAX_BATCH       256
#define ATLAS_MAX_ASK_MS      86400000

/* How a worker gets on with a call. */
#define ATLAS_STEP_BEGIN   0 /* Python runs */
#define ATLAS_STEP_PASS    1 /* the implementation has nothing against it */
#define ATLAS_STEP_MODIFY  2 /* the sink's body is what goes on */
#define ATLAS_STEP_REJECT  3 /* the sink's status, 400 to 599, and its body, a line, are the answer */
#define ATLAS_STEP_RESPOND 4 /* the sink is the answer */
#define ATLAS_STEP_FAIL    5 /* it raised, or answered what it may not */

#define ATLAS_EVENT_TOUCHED 0
#define ATLAS_EVENT_EVICTED 1
#define ATLAS_EVENT_SAVED   2 /* its file is durable */

#define ATLAS_KIND_BLOCK      0
#define ATLAS_KIND_TAIL       1
#define ATLAS_KIND_CHECKPOINT 2

#define ATLAS_STRATEGY_LRU      0
#define ATLAS_STRATEGY_LFU      1
#define ATLAS_STRATEGY_ADAPTIVE 2

/* What happened to an entry of the memory. Times and priorities are on a clock that counts touches and starts with the
 * server; those of entries from before are negative. A request's touches follow each other, deepest entry first; after each
 * 64th, others may come between. */
typedef struct atlas_memory_event {
    uint64_t key;         /* not 0 */
    uint64_t parent;      /* of the block before it; 0 at a root */
    int64_t  now;
    int64_t  priority;    /* EVICTED: what it had */
    uint64_t size;        /* bytes, at least 1; SAVED: of its file */
    double   seconds;     /* TOUCHED: what computing it would cost, with a model that takes 1 ms a token; SAVED: what
                           * writing its file took, pauses included */
    uint8_t  what;        /* ATLAS_EVENT_… */
    uint8_t  layer;       /* EVICTED: 1 or 2; SAVED: 2 */
    uint8_t  kind;        /* ATLAS_KIND_… */
    uint8_t  strategy;    /* ATLAS_STRATEGY_… */
    uint32_t n_tokens;    /* SAVED: those that it adds to its parent's */
} atlas_memory_event;

typedef struct atlas_slice {
    const char * data;
    size_t       size;
} atlas_slice;

typedef struct atlas_header {
    atlas_slice name;  /* requests: lower case */
    atlas_slice value;
} atlas_header;

typedef struct atlas_http_request {
    atlas_slice          method;        /* GET, POST or DELETE */
    atlas_slice          path;          /* decoded, without the server's --api-prefix: starts with /v1/atlas */
    atlas_slice          query;         /* what stood behind the '?', still encoded */
    atlas_slice          body;          /* raw bytes */
    const atlas_header * headers;
    size_t               n_headers;
    atlas_slice          tenant; /* whose key it came with: 16 hexadecimal digits, or empty: all see the same */
    int32_t              is_admin; /* 1: may see all tenants and change settings; else 0 */
} atlas_http_request;

/* One call of a hook's implementations, for a worker. The slices are borrowed until the worker asks for the next. */
typedef struct atlas_hook_work {
    uint64_t    number;  /* in: of the call that the worker had before; 0: it is new */
    uint64_t    table;   /* of the HOOKS or TIERS query whose implementations are meant */
    uint64_t    request; /* of which it is, the same for all its calls */
    int32_t     hook;    /* ATLAS_HOOK_… */
    int32_t     reserved;
    atlas_slice head;    /* JSON, what there is to know of the request */
    atlas_slice body;
    uint64_t    payload; /* bytes that hook_read copies */
} atlas_hook_work;

/* What Python may call, the same for all hosts of a process. The struct outlives the process's last Python call. */
typedef struct atlas_host_api {
    uint32_t abi_version;
    void (*log)(int32_t level, atlas_slice text); /* one record of the process's log; may hold newlines */
    int32_t (*query)(void * host, int32_t what, atlas_slice argument, void * sink); /* appends to the sink's body */
    void (*sink_status)(void * sink, int32_t http_status); /* default 200 */
    void (*sink_header)(void * sink, atlas_slice name, atlas_slice value); /* Content-Type included */
    void (*sink_body)(void * sink, atlas_slice bytes); /* appends */
    void (*sink_stream)(void * sink, uint64_t stream); /* the body follows by stream_next */
    void * (*sink_new)(void); /* a sink of Python's own, for query */
    atlas_slice (*sink_text)(void * sink); /* its body; borrowed until the next call */
    void (*sink_free)(void * sink);

    /* Hooks on the path of requests, and tiers, are called by workers, threads of Python. These are for them, and block. queue:
     * ATLAS_QUEUE_…. */

    /* Waits until another worker is needed: ATLAS_OK; or ATLAS_STREAM_END, never again. has_failed: 1: the one that was needed
     * last could not be made; else 0. One thread only for each queue. */
    int32_t (*hook_worker_wanted)(void * host, int32_t queue, int32_t has_failed);
    /* Waits for a call: ATLAS_OK; or ATLAS_STREAM_END: the worker is to end. */
    int32_t (*hook_take)(void * host, int32_t queue, atlas_hook_work * work);
    /* To be called with BEGIN once, then with what became of each implementation. sink: what goes with the step; may be null.
     * Answers the position, in the table, of the implementation that is next; below 0: the worker is to leave the call. */
    int64_t (*hook_step)(void * host, int32_t queue, uint64_t number, int32_t step, void * sink);
    /* Copies the payload of a call, all of its bytes: ATLAS_OK; or ATLAS_FAILED: nobody waits for the call any more. */
    int32_t (*hook_read)(void * host, int32_t queue, uint64_t number, void * to, uint64_t bytes);
} atlas_host_api;

/* cffi: types end */

/* cffi: functions begin */

/* Makes the application of a host: loads the plugins and runs their startup hooks. host: what its queries are asked of.
 * Writes the application's number, which is above 0 and never used again, to *application. On failure the sink's body is
 * one line that says why and what to do. Plugins that fail are disabled and reported, they do not fail this. */
int32_t atlas_python_start(const atlas_host_api * api, void * host, uint64_t * application, void * sink);

/* The functions below are of one application. Those of different applications do not wait for each other but for the GIL. */

/* called_ns, of the three that requests call: when the host called, in nanoseconds of CLOCK_MONOTONIC. Python counts what
 * passed until it ran, which is the wait for the GIL but for some microseconds. */

/* Answers one HTTP request. On ATLAS_FAILED (Python itself is broken) the host answers 500 by itself. */
int32_t atlas_python_request(uint64_t application, const atlas_http_request * request, int64_t called_ns, void * sink);

/* Does one of ATLAS_CALL_…. On ATLAS_FAILED the sink's status and body are the HTTP status and one line for the client. */
int32_t atlas_python_call(uint64_t application, int32_t what, atlas_slice argument, int64_t called_ns, void * sink);

/* Appends the next piece of a streamed body to the sink: ATLAS_OK (the piece may be empty, call again),
 * ATLAS_STREAM_END, or ATLAS_FAILED (the body ends here; the log says why). Called by one thread at a time for each stream. */
int32_t atlas_python_stream_next(uint64_t application, uint64_t stream, int64_t called_ns, void * sink);

/* Gives a stream back, ended or not; exactly once for each sink_stream. */
void atlas_python_stream_close(uint64_t application, uint64_t stream);

/* Runs the application's shutdown hooks and makes durable what is not. */
int32_t atlas_python_stop(uint64_t application);

/* cffi: functions end */

#ifdef __cplusplus
}
#endif

#endif /* ATLAS_ABI_H */
