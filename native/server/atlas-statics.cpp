// What of native/server lives as long as the process, and why it cannot be a member of an object that is passed on.
// native/statics.txt names it, and what else in native/ is so.
#include "atlas-authenticate.h"
#include "atlas-server-state.h"

#include <utility>

// Seams in server-stream.cpp, server-queue.cpp, server-http.cpp and server-context.cpp are called where nothing of ours is at
// hand: upstream calls them from threads that it got a request or its loop from, and those have a scope where they are not
// llama-server's.
static thread_local atlas_server_state * of_thread = nullptr;

// llama-server is one a process: its sessions of streams and its shutdown handler are globals of upstream's, and options are
// set by plain function pointers, before llama_server() makes its atlas_server. So this is made when it is first asked for.
static atlas_server_state & of_process() {
    static auto & only = *new atlas_server_state;
    return only;
}

atlas_server_state & atlas_state() { return of_thread ? *of_thread : of_process(); }

atlas_state_scope::atlas_state_scope(atlas_server_state & of) : before(std::exchange(of_thread, &of)) {}

atlas_state_scope::~atlas_state_scope() { of_thread = before; }

std::unique_ptr<atlas::runtime> & atlas_active() { return atlas_state().runtime; }

// Upstream looks at a request's key before it makes what its handlers get of the request, and hands nothing on.
std::optional<atlas::identity> & atlas_named_sender() {
    static thread_local std::optional<atlas::identity> sender;
    return sender;
}

// cpp-httplib calls its error handler on the thread that ran the handler, after it, and hands nothing on from one to the
// other but the answer that the client gets.
bool & atlas_is_error_of_handler() {
    static thread_local bool is_of_handler = false;
    return is_of_handler;
}
