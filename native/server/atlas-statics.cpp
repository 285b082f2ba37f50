// What of native/server lives as long as the process, and why it cannot be a member of an object that is passed on.
// native/statics.txt names it, and what else in native/ is so.
#include "atlas-server-state.h"

// llama-server is one a process: its sessions of streams and its shutdown handler are globals of upstream's. Seams in
// server-stream.cpp, server-queue.cpp, server-http.cpp and server-context.cpp are called where nothing of ours is at hand, and
// options are set by plain function pointers, before llama_server() makes its atlas_server. So this is made when it is first
// asked for.
atlas_server_state & atlas_state() {
    static auto & only = *new atlas_server_state;
    return only;
}

std::unique_ptr<atlas::runtime> & atlas_active() { return atlas_state().runtime; }

// cpp-httplib calls its error handler on the thread that ran the handler, after it, and hands nothing on from one to the
// other but the answer that the client gets.
bool & atlas_is_error_of_handler() {
    static thread_local bool is_of_handler = false;
    return is_of_handler;
}
