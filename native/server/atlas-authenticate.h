// Who sends a request: a plugin that has the hook `authenticate` says so, else the API key.
//
// Upstream calls the seams of one request on one thread, which then runs its handler; what a plugin said is kept for that
// thread in between.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-tenant.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

struct common_params;

namespace httplib {
struct Request;
struct Response;
} // namespace httplib

// Where a plugin has the hook: has upstream want a key of every request, also where none is set. Before the HTTP server is made.
void atlas_want_keys(common_params & params);

// The first that is called for a request: forgets what was said of the one before.
void atlas_meet(const httplib::Request & request);

// server-http.cpp: whether the request may go on: as a plugin says, or because the key is one of these. Comparing takes the same
// time whichever it is, and however much of one is right. Waits for the plugin until its deadline.
bool atlas_is_known_key(const std::vector<std::string> & keys, const std::string & presented);

// Whether a plugin refused the request that this thread met; then gives the response its words.
bool atlas_explain_refusal(httplib::Response & response);

// Whom a plugin named as the sender of the request that this thread serves.
std::optional<atlas::identity> & atlas_named_sender();

// Who sends the request that this thread serves, whose headers these are.
atlas::identity atlas_sender(const std::map<std::string, std::string> & headers);

#endif // LLAMA_ATLAS
