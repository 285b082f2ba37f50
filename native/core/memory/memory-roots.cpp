#include "atlas-file-hashing.hpp"
#include "atlas-log.hpp"
#include "atlas-memory-roots.hpp"
#include "atlas-root-status.hpp"
#include "hash/hash.h"

#include <new>

namespace atlas {

// The start waits for the hashing of so many bytes: it takes a fraction of a second, as the model has just been read,
// and without the hash conversations would stay in RAM at first.
static const uint64_t WAITED_BYTES = 64 << 20;

static std::string sha256_of(const std::string & text) { return hash_sha256_hex(text.data(), text.size()); }

// The root of every chain of a model. hashes: of its files, in their order.
static std::string root_of(const std::string & settings, const std::vector<std::string> & hashes) {
    std::string all = settings;
    for (const std::string & hash : hashes) {
        all += " file=" + hash;
    }
    return sha256_of(all);
}

std::string memory_root::of(const std::string & tenant) const {
    if (!is_known) {
        const std::lock_guard<std::mutex> held(mutex);
        asked.insert(tenant);
    }
    return tenant.empty() ? text : sha256_of(text + tenant);
}

std::set<std::string> memory_root::tenants() const {
    const std::lock_guard<std::mutex> held(mutex);
    return asked;
}

memory_access memory_root::limit(memory_access access) const {
    access.is_held_back = !is_known;
    return access;
}

memory_roots::~memory_roots() { status.give_up(); }

const memory_root & memory_roots::set(std::string text, bool is_known) {
    const std::lock_guard<std::mutex> held(mutex);
    made.push_back(std::make_unique<memory_root>(std::move(text), is_known));
    current.store(made.back().get(), std::memory_order_release);
    return *made.back();
}

void memory_roots::preload(const memory_root & root, const std::vector<std::string> & tenants) {
    std::vector<std::string> roots;
    for (const std::string & tenant : tenants) {
        roots.push_back(root.of(tenant));
    }
    std::call_once(preloaded, [&] { store.preload(roots); });
}

// Moves to the root what was kept under the one before. What sequences hold need not be moved: they capture it again.
void memory_roots::replace(const memory_root & before, const memory_root & root) {
    try {
        for (const std::string & tenant : before.tenants()) {
            store.adopt(before.of(tenant), root.of(tenant));
        }
    } catch (const std::bad_alloc &) {
        log(LogLevel::WARN, "no memory to keep all that was computed before the model's files were hashed");
    }
}

void memory_roots::settle(file_hashing & files, const std::string & settings,
                          const std::vector<std::string> & tenants) {
    files.wait(WAITED_BYTES);
    const auto now = files.progress();
    if (now.is_done && now.problem.empty()) {
        const memory_root & root = set(root_of(settings, files.hashes()), true);
        preload(root, tenants);
        status.set(root.text, "");
        return;
    }
    const memory_root & provisional = set(sha256_of("provisional " + std::to_string(n_provisional++)), false);
    status.set("", "");
    files.then([this, &files, &provisional, settings, tenants] {
        const auto hashes = files.hashes();
        if (hashes.empty()) {
            status.set("", ""); // there will be no root: this has the reason logged
            return;
        }
        const memory_root & root = set(root_of(settings, hashes), true);
        replace(provisional, root);
        preload(root, tenants);
        status.set(root.text, "");
    });
}

} // namespace atlas
