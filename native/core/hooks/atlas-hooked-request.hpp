// One request on its way through the plugins' hooks. It goes on with the plugins that there were when it began. Used by one
// thread at a time.
#pragma once

#include "atlas-hook-calls.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

namespace atlas {

class hooked_request {
  public:
    static constexpr std::chrono::milliseconds MAX_HELD{100};

    explicit hooked_request(hook_calls & calls) : calls(calls), table(calls.table()), number(calls.new_request()) {}

    bool has(hook what) const { return !table->of(what).empty(); }
    bool reads_body(hook what) const { return table->reads_body(what); }

    // JSON, what plugins are told of the request.
    void set_head(std::string text) { head = std::make_shared<const std::string>(std::move(text)); }

    // As hook_calls::ask(). Waits; throws atlas::error.
    hook_outcome ask(hook what, std::string body) {
        was_asked = true;
        return calls.ask(table, what, number, head, std::make_shared<const std::string>(std::move(body)));
    }

    // Tells that it has ended, and how. To be called last.
    void end(hook how, std::string record) {
        if (has(how) || (was_asked && table->keeps_state())) { // Python forgets what it keeps about it
            calls.tell(table, how, number, head, std::make_shared<const std::string>(std::move(record)));
        }
    }

    // Keeps a piece of a streamed answer, JSON or an empty text, until there are as many as a plugin wants at once, the first has been kept for
    // MAX_HELD, or it is the last. Then returns all of them, with commas between; else nothing.
    std::string hold(const std::string & piece, bool is_last) {
        const auto now = hook_calls::clock::now();
        held_since     = n_held == 0 ? now : held_since;
        if (!piece.empty()) {
            held += (n_held++ > 0 ? "," : "") + piece;
        }
        if (n_held < batch() && now - held_since < MAX_HELD && !is_last) {
            return "";
        }
        n_held = 0;
        return std::exchange(held, "");
    }

    bool has_seen_prompt = false; // plugins were asked about the prompt

  private:
    hook_calls &                            calls;
    const std::shared_ptr<const hook_table> table;
    const uint64_t                          number;
    hook_text                               head      = std::make_shared<const std::string>("{}");
    bool                                    was_asked = false;

    std::string                   held;
    int                           n_held = 0;
    hook_calls::clock::time_point held_since;

    // The most pieces that a plugin wants at once.
    int batch() const {
        int most = 1;
        for (const auto & each : table->of(hook::stream_chunk)) {
            most = std::max(most, each.batch);
        }
        return most;
    }
};

} // namespace atlas
