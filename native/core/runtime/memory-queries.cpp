#include "memory-queries.hpp"

#include "atlas-abi.h"
#include "query-arguments.hpp"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstring>
#include <thread>

namespace atlas {

using json = nlohmann::json;

static std::optional<std::string> take_events(memory_store & store, std::string_view argument) {
    if (!argument.empty() && argument != "saved") {
        return std::nullopt;
    }
    const auto events = store.take_events(ATLAS_MAX_EVENTS, !argument.empty());
    return std::string(reinterpret_cast<const char *>(events.data()), events.size() * sizeof(memory_event));
}

static std::optional<std::string> set_order(memory_store & store, std::string_view argument) {
    std::vector<int64_t> numbers(argument.size() / sizeof(int64_t));
    if (numbers.empty() || argument.size() % sizeof(int64_t) != 0) {
        return std::nullopt;
    }
    std::memcpy(numbers.data(), argument.data(), argument.size());
    if (numbers[0] != 1 && numbers[0] != 2) {
        return std::nullopt;
    }
    store.set_order((int) numbers[0], numbers.data() + 1, numbers.size() - 1);
    return "";
}

static uint64_t count_of(const json & argument, const char * name) {
    const json & value = argument.at(name);
    if (!value.is_number_unsigned()) {
        throw bad_argument();
    }
    return value.get<uint64_t>();
}

static double time_of(const json & argument, const char * name) {
    constexpr double MAX_S = 1e12; // a sum or a difference of two stays exact to a millisecond
    const json &     value = argument.at(name);
    const double     time  = value.is_number() ? value.get<double>() : -1;
    if (!(time >= 0 && time <= MAX_S)) {
        throw bad_argument();
    }
    return time;
}

static std::string take_blocks(memory_store & store, const json & argument) {
    const auto found  = store.take_block_changes(argument.at("root").get<std::string>(), ATLAS_MAX_BLOCK_CHANGES,
                                                 argument.at("from_start").get<bool>());
    json       answer = {{"anew", found.is_anew}, {"more", found.has_more}, {"changes", json::array()}};
    for (const block_change & change : found.changes) {
        answer["changes"].push_back({change.is_stored, change.tier, change.key, change.parent, change.tokens});
    }
    return answer.dump();
}

static std::string list_sessions(const memory_store & store, const json & argument) {
    const bool     is_by_id = argument.contains("ids");
    const uint64_t since    = is_by_id ? 0 : count_of(argument, "since");
    const auto     found    = is_by_id ? store.find_sessions(argument.at("ids").get<std::vector<std::string>>())
                                       : store.sessions_since(since, ATLAS_MAX_SESSIONS);
    json           answer   = {{"version", found.empty() ? since : found.back().version}, {"sessions", json::array()}};
    for (const memory_session & session : found) {
        answer["sessions"].push_back({{"session_id", session.id},
                                      {"version", session.version},
                                      {"tokens", session.n_tokens},
                                      {"chain", session.chain},
                                      {"last_used", session.last_used},
                                      {"pinned", session.is_pinned},
                                      {"pinned_bytes", session.pinned_bytes},
                                      {"ram_bytes", session.ram_bytes},
                                      {"disk_bytes", session.disk_bytes}});
    }
    return answer.dump();
}

// Before all files are known, what is a session's own cannot be told from what is shared, nor how much that is.
static void wait_indexed(const memory_store & store) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    for (memory_stats stats = store.stats(); !stats.index_complete && stats.disk_problem.empty();
         stats              = store.stats()) {
        if (std::chrono::steady_clock::now() >= deadline) {
            return;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

static std::optional<std::string> edit_session(memory_store & store, const json & argument) {
    const auto id     = argument.at("session_id").get<std::string>();
    const auto action = argument.at("action").get<std::string>();
    if (action == "restore") {
        memory_session session;
        session.id        = id;
        session.n_tokens  = count_of(argument, "tokens");
        session.last_used = time_of(argument, "last_used");
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
            case ATLAS_QUERY_MEMORY_EVENTS: return take_events(store, argument);
            case ATLAS_QUERY_MEMORY_ORDER:  return set_order(store, argument);
            case ATLAS_QUERY_SESSIONS:      return list_sessions(store, json::parse(argument));
            case ATLAS_QUERY_BLOCK_CHANGES: return take_blocks(store, json::parse(argument));
            case ATLAS_QUERY_SESSION_EDIT:  return edit_session(store, json::parse(argument));
            default:                        return std::nullopt;
        }
    } catch (const json::exception &) {
        return std::nullopt;
    } catch (const bad_argument &) {
        return std::nullopt;
    }
}

} // namespace atlas
