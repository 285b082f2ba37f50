#include "memory-queries.hpp"

#include "atlas-abi.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>

namespace atlas {

using json = nlohmann::json;

static_assert(sizeof(memory_event) == sizeof(atlas_memory_event));
static_assert(offsetof(memory_event, saving) == offsetof(atlas_memory_event, saving));
static_assert(offsetof(memory_event, strategy) == offsetof(atlas_memory_event, strategy));

static const size_t MAX_EVENTS   = 1024; // copied while the token loop may wait
static const size_t MAX_SESSIONS = 1000;

static std::string take_events(memory_store & store) {
    const auto events = store.take_events(MAX_EVENTS);
    return {reinterpret_cast<const char *>(events.data()), events.size() * sizeof(memory_event)};
}

static std::optional<std::string> set_order(memory_store & store, std::string_view argument) {
    if (argument.empty()) {
        return std::nullopt;
    }
    std::vector<int64_t> numbers(argument.size() / sizeof(int64_t));
    std::memcpy(numbers.data(), argument.data(), numbers.size() * sizeof(int64_t));
    if (argument.size() % sizeof(int64_t) != 0 || numbers.empty() || (numbers[0] != 1 && numbers[0] != 2)) {
        return std::nullopt;
    }
    store.set_order((int) numbers[0], numbers.data() + 1, numbers.size() - 1);
    return "";
}

static std::string list_sessions(const memory_store & store, const json & argument) {
    const auto found  = argument.contains("ids")
                            ? store.find_sessions(argument.at("ids").get<std::vector<std::string>>())
                            : store.sessions_since(argument.at("since").get<uint64_t>(), MAX_SESSIONS);
    json       answer = {{"version", found.empty() ? argument.value("since", uint64_t(0)) : found.back().version},
                         {"sessions", json::array()}};
    for (const memory_session & session : found) {
        answer["sessions"].push_back({{"session_id", session.id},
                                      {"version", session.version},
                                      {"tokens", session.n_tokens},
                                      {"chain", session.chain},
                                      {"last_used", session.last_used},
                                      {"pinned", session.is_pinned},
                                      {"ram_bytes", session.ram_bytes},
                                      {"disk_bytes", session.disk_bytes}});
    }
    return answer.dump();
}

// Before all files are known, what is a session's own cannot be told from what is shared.
static void wait_indexed(const memory_store & store) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!store.stats().index_complete && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

static std::optional<std::string> edit_session(memory_store & store, const json & argument) {
    const auto id     = argument.at("session_id").get<std::string>();
    const auto action = argument.at("action").get<std::string>();
    if (action == "restore") {
        memory_session session;
        session.id        = id;
        session.n_tokens  = argument.at("tokens").get<uint64_t>();
        session.last_used = argument.at("last_used").get<double>();
        session.is_pinned = argument.at("pinned").get<bool>();
        session.chain     = argument.at("chain").get<std::vector<std::string>>();
        store.restore_session(session);
        return json{{"found", true}}.dump();
    }
    if (action == "pin" || action == "unpin") {
        const bool is_found = !store.find_sessions({id}).empty();
        const auto problem  = store.pin_session(id, action == "pin");
        json       answer   = {{"found", is_found}};
        if (!problem.empty()) {
            answer["problem"] = problem;
        }
        return answer.dump();
    }
    if (action == "forget" || action == "expire") {
        if (action == "forget") {
            wait_indexed(store);
        }
        const auto bytes = store.remove_session(id, action == "forget");
        return json{{"found", bytes.has_value()}, {"bytes", bytes.value_or(0)}}.dump();
    }
    return std::nullopt;
}

std::optional<std::string> answer_memory_query(memory_store & store, int32_t what, std::string_view argument) {
    try {
        switch (what) {
            case ATLAS_QUERY_MEMORY_EVENTS: return take_events(store);
            case ATLAS_QUERY_MEMORY_ORDER:  return set_order(store, argument);
            case ATLAS_QUERY_SESSIONS:      return list_sessions(store, json::parse(argument));
            case ATLAS_QUERY_SESSION_EDIT:  return edit_session(store, json::parse(argument));
            default:                        return std::nullopt;
        }
    } catch (const json::exception &) {
        return std::nullopt;
    }
}

} // namespace atlas
