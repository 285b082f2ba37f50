#include "atlas-file-hashing.hpp"
#include "atlas-log.hpp"
#include "atlas-memory-roots.hpp"
#include "atlas-root-status.hpp"
#include "hash/hash.h"

#include <algorithm>
#include <new>
#include <utility>

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

// The lineage with what stands for its adapters in the place of their numbers, which are those of one start.
static std::string named(const std::string & lineage, const std::vector<std::string> & adapters) {
    std::string text;
    for (size_t at = 0; at < lineage.size();) {
        const size_t end    = std::min(lineage.find(' ', at + 1), lineage.size());
        const size_t number = lineage[at] == ' ' ? std::stoul(lineage.substr(at + 1)) : adapters.size();
        text += number < adapters.size()
                    ? " " + adapters[number] + lineage.substr(lineage.find(':', at), end - lineage.find(':', at))
                    : lineage.substr(at, end - at);
        at = end;
    }
    return text;
}

std::string memory_root::of(const std::string & lineage) const {
    if (!is_known) {
        const std::lock_guard<std::mutex> held(mutex);
        asked.insert(lineage);
    }
    return lineage.empty() ? text : sha256_of(text + named(lineage, adapters));
}

std::set<std::string> memory_root::lineages() const {
    const std::lock_guard<std::mutex> held(mutex);
    return asked;
}

memory_access memory_root::limit(memory_access access) const {
    access.is_held_back = !is_known;
    return access;
}

memory_roots::~memory_roots() { status.give_up(); }

const memory_root & memory_roots::set(std::unique_ptr<memory_root> root) {
    const std::lock_guard<std::mutex> held(mutex);
    made.push_back(std::move(root));
    current.store(made.back().get(), std::memory_order_release);
    return *made.back();
}

const memory_root & memory_roots::set_known(const std::string & settings, std::vector<std::string> hashes,
                                            size_t n_adapters) {
    const auto               first = hashes.end() - (std::ptrdiff_t) n_adapters;
    std::vector<std::string> adapters(first, hashes.end());
    hashes.erase(first, hashes.end());
    return set(std::make_unique<memory_root>(root_of(settings, hashes), true, std::move(adapters)));
}

void memory_roots::preload(const memory_root & root, const std::vector<std::string> & lineages) {
    std::vector<std::string> roots;
    for (const std::string & lineage : lineages) {
        roots.push_back(root.of(lineage));
    }
    std::call_once(preloaded, [&] { store.preload(roots); });
}

// Moves to the root what was kept under the one before. What sequences hold need not be moved: they capture it again.
void memory_roots::replace(const memory_root & before, const memory_root & root) {
    try {
        for (const std::string & lineage : before.lineages()) {
            store.adopt(before.of(lineage), root.of(lineage));
        }
    } catch (const std::bad_alloc &) {
        log(LogLevel::WARN, "no memory to keep all that was computed before the model's files were hashed");
    }
}

void memory_roots::settle(file_hashing & files, const std::string & settings, const std::vector<std::string> & lineages,
                          size_t n_adapters) {
    files.wait(WAITED_BYTES);
    const auto now = files.progress();
    if (now.is_done && now.problem.empty()) {
        const memory_root & root = set_known(settings, files.hashes(), n_adapters);
        preload(root, lineages);
        status.set(root.text, "");
        return;
    }
    const memory_root & provisional =
        set(std::make_unique<memory_root>(sha256_of("provisional " + std::to_string(n_provisional++)), false));
    status.set("", "");
    files.then([this, &files, &provisional, settings, lineages, n_adapters] {
        const auto hashes = files.hashes();
        if (hashes.empty()) {
            status.set("", ""); // there will be no root: this has the reason logged
            return;
        }
        const memory_root & root = set_known(settings, hashes, n_adapters);
        replace(provisional, root);
        preload(root, lineages);
        status.set(root.text, "");
    });
}

} // namespace atlas
