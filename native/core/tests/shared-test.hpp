// What the tests of tier 3 share: a server's memory beside a tier that does what a test says.
#pragma once

#include "memory-test.hpp"
#include "scripted-tier.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace memory_test {

inline memory_options sharing(std::shared_ptr<tier> place, const std::string & dir = "") {
    memory_options with   = options(dir);
    with.shared.place     = std::move(place);
    with.shared.timeout_s = 60; // a test that waits fails by what it waits for
    return with;
}

struct sharing_server {
    std::shared_ptr<scripted_tier> place;
    memory_store                   store;

    explicit sharing_server(const std::shared_ptr<scripted_tier> & at) : sharing_server(at, sharing(at)) {}
    sharing_server(std::shared_ptr<scripted_tier> at, const memory_options & with) : place(std::move(at)), store(with) {
        wait_until([this] { return store.stats().shared.is_tried; });
    }

    fetch_result fetch(const memory_tokens & tokens, bool need_checkpoint = false, const memory_access & access = {}) {
        return store.fetch(ROOT, tokens.data(), tokens.size(), need_checkpoint, access);
    }
};

inline std::string name_of(const std::string & key) { return "atlas:1:" + ROOT.substr(0, 16) + ":" + key; }

// What one server computed is with the tier.
inline std::vector<std::string> shared_by_another(const std::shared_ptr<scripted_tier> & place,
                                                  const memory_tokens &                  tokens) {
    sharing_server first(place);
    const auto     keys = put_all(first.store, tokens);
    CHECK(first.store.flush_shared(60));
    return keys;
}

} // namespace memory_test
