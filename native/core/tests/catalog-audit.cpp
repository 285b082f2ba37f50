#include "catalog-audit.hpp"

#include "cases.hpp"

#include <map>

namespace atlas::memory {

void catalog_audit::check_node(const catalog & of, const index_node & node) {
    CHECK(node.is_stored() || !node.children.empty());
    CHECK((node.parent != nullptr) || !node.is_stored());
    CHECK(!node.parent || node.parent->children.count(const_cast<index_node *>(&node)) == 1);
    for (const index_node * child : node.children) {
        CHECK(child->parent == &node);
    }
    CHECK((node.in_ram != nullptr) == node.ram.present);
    CHECK(!node.in_ram || node.ram.bytes == memory_bytes(*node.in_ram));
    CHECK(node.file.size() == node.disk.present && (node.file.empty() || node.file.front().bytes == node.disk.bytes));
    const bool is_orphan =
        node.position > 0 && (!node.parent || !node.parent->disk.present || node.parent->disk.is_orphan);
    CHECK(node.disk.is_orphan == (of.knows_files && node.disk.present && is_orphan));
    const auto held = of.sessions.held().find(*node.key);
    CHECK(!node.is_stored() || node.n_sessions == (held == of.sessions.held().end() ? 0 : held->second.n_sessions));
    CHECK(!node.is_stored() || node.wants_pin == (held != of.sessions.held().end() && held->second.n_pins > 0));
    const bool is_beginning = node.in_ram && node.position == 0 && node.kind != entry_kind::checkpoint;
    CHECK(node.n_begun == (is_beginning ? node.n_sessions : 0));
    CHECK(!node.is_pinned || node.wants_pin);
}

void catalog_audit::check_tier(const catalog & of, const tier_books & books, tier_state index_node::* state) {
    uint64_t n_entries = 0, n_bytes = 0, n_leaves = 0;
    for (const auto & [key, node] : of.index.nodes) {
        const tier_state & own        = node.*state;
        uint32_t           n_children = 0;
        for (const index_node * child : node.children) {
            n_children += (child->*state).present;
        }
        CHECK(own.children == n_children);
        CHECK(own.present || own.bytes == 0);
        n_entries += own.present;
        n_bytes += own.bytes;
        if (own.present && n_children == 0) {
            n_leaves++;
            CHECK(own.seat.empty() && books.leaves.count(books.place_of(const_cast<index_node &>(node))) == 1);
        } else {
            CHECK(own.seat.empty() == !own.present);
        }
    }
    CHECK(books.n_entries == n_entries && books.n_bytes == n_bytes && books.leaves.size() == n_leaves);
}

void catalog_audit::check_writes(const catalog & of) {
    uint64_t n_pending = 0, n_bytes = 0, n_being_written = 0;
    for (const auto & [key, node] : of.index.nodes) {
        if (node.pending) {
            n_pending++;
            n_bytes += memory_bytes(*node.pending->entry);
            n_being_written += node.pending->is_being_written;
            CHECK(of.queue.outstanding.count(node.pending->sequence) == 1);
            CHECK(node.pending->is_being_written || of.queue.jobs.count(node.pending->place) == 1 ||
                  of.queue.delayed.count(node.pending->place) == 1 ||
                  of.queue.postponed.count(node.pending->place) == 1);
        }
    }
    CHECK(of.queue.entries() == n_pending && of.queue.bytes() == n_bytes);
    CHECK(of.queue.jobs.size() + of.queue.delayed.size() + of.queue.postponed.size() + n_being_written == n_pending);
}

void catalog_audit::check_sessions(const session_index & of) {
    std::map<digest, ref_counts> expected;
    size_t                       n_keys = 0, n_idle = 0;
    const auto                   add = [&](const session & one) {
        for (size_t i = 0; i < one.chain.size(); i++) {
            expected[one.chain[i]].n_sessions++;
            expected[one.chain[i]].n_pins += i < one.n_pinned;
        }
    };
    for (const auto & [id, one] : of.sessions) {
        add(one);
        n_keys += one.chain.size();
        n_idle += !one.is_pinned;
        CHECK(one.n_pinned <= one.chain.size());
        CHECK(of.by_version.count(one.version) == 1 && of.by_version.at(one.version) == id);
        CHECK(of.idle.count({one.last_used, id}) == !one.is_pinned);
    }
    for (const session & one : of.pending_unref) {
        CHECK(!one.chain.empty());
        add(one);
    }
    CHECK(of.n_keys == n_keys && of.idle.size() == n_idle && of.by_version.size() == of.sessions.size());
    CHECK(of.entries.size() == expected.size());
    for (const auto & [key, one] : expected) {
        const auto held = of.entries.find(key);
        CHECK(held != of.entries.end() && held->second.n_sessions == one.n_sessions &&
              held->second.n_pins == one.n_pins);
    }
}

void catalog_audit::check(const catalog & of) {
    uint64_t pinned = 0, refused = 0, begun = 0;
    for (const auto & [key, node] : of.index.nodes) {
        CHECK(*node.key == key);
        check_node(of, node);
        (node.is_pinned ? pinned : refused) += node.pin_bytes;
        begun += node.n_begun;
    }
    CHECK(of.pinned_bytes == pinned && of.refused_bytes == refused && of.sessions_in_ram == begun);
    CHECK(of.pinned_bytes <= of.pinned_limit() && of.ram.bytes() <= of.ram.budget);
    check_tier(of, of.ram, &index_node::ram);
    check_tier(of, of.disk, &index_node::disk);
    check_writes(of);
    check_sessions(of.sessions);
}

std::vector<digest> catalog_audit::stored(const catalog & of) {
    std::vector<digest> keys;
    for (const auto & [key, node] : of.index.nodes) {
        if (node.is_stored()) {
            keys.push_back(key);
        }
    }
    return keys;
}

} // namespace atlas::memory
