/// @file
/// The shortest way to ATLAS: one server for the whole program, made by init_atlas().
///
///     atlas::init_atlas(model);
///     if (atlas::is_atlas_request(request)) {
///         auto response = atlas::process_with_atlas(request);
///         return atlas::enhance_response_with_atlas(response, true);
///     }
///
/// Functions may be called by any thread, but init_atlas() and shutdown_atlas(), which must not run beside any other.
#pragma once

#include "atlas-server.hpp"

namespace atlas {

/// Makes the program's server of a model, which has to be freed after shutdown_atlas(). Settings come from the environment
/// (ATLAS_MEMORY_PATH and its like) where none are given. Throws what AtlasServer::initialize() throws, and
/// std::runtime_error where there is one already.
void init_atlas(llama_model * model);

/// The same with settings and options of your own; both are copied.
void init_atlas(llama_model * model, const AtlasServerConfig & config, const AtlasModelOptions & options = {});

/// Ends it; after that init_atlas() may be called anew. Does nothing where there is none. A program that ends without it loses
/// what was not durable yet. See AtlasServer::~AtlasServer(). Never throws.
void shutdown_atlas();

/// The program's server, which is valid until shutdown_atlas(). Throws std::runtime_error before init_atlas().
AtlasServer & atlas_instance();

/// Whether a completion request has an `atlas` object. Needs no server; never throws.
bool is_atlas_request(const json & request);

/// Answers a completion request, with an `atlas` object or without; see AtlasServer::handle_completion_request().
/// Throws std::runtime_error before init_atlas().
json process_with_atlas(const json & request);

/// Adds to an answer what it lacks: the `atlas` object, where the request had none, says whether ATLAS is there and in what
/// state. with_metrics: and has the present metrics. An error is given back as it is. Throws std::runtime_error before init_atlas().
json enhance_response_with_atlas(json response, bool with_metrics);

/// Version, status and settings, as an object: "version", "initialized", "status", "config"; before init_atlas()
/// the first two alone.
json get_atlas_info();

} // namespace atlas
