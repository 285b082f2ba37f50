#include "atlas-memory-root.h"

#include "atlas-fingerprint.h"
#include "atlas-gateway.hpp"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-runtime.hpp"
#include "common.h"
#include "hash/hash.h"

#include <mutex>
#include <new>
#include <vector>

// So much is sooner hashed than it is worth to begin without: a fraction of a second, as the model has just been read.
static const uint64_t WAITED_BYTES = 64 << 20;

std::string memory_root::of(const std::string & tenant) const {
    if (!is_known) {
        const std::lock_guard<std::mutex> held(mutex);
        asked.insert(tenant);
    }
    const std::string both = text + tenant;
    return tenant.empty() ? text : hash_sha256_hex(both.data(), both.size());
}

std::set<std::string> memory_root::tenants() const {
    const std::lock_guard<std::mutex> held(mutex);
    return asked;
}

atlas::memory_access memory_root::limit(atlas::memory_access access) const {
    access.is_held_back = !is_known;
    return access;
}

static const memory_root & set_root(std::string text, bool is_known) {
    const auto * root = new memory_root(std::move(text), is_known);
    atlas_setup.root  = root;
    return *root;
}

// Of all who may ask: those without a key, and those with each.
static std::vector<std::string> all_tenants(const common_params & params) {
    std::vector<std::string> tenants = {""};
    for (const std::string & key : params.api_keys) {
        tenants.push_back(atlas_active()->gate().identify(key).tenant);
    }
    return tenants;
}

static void preload(const memory_root & root, const std::vector<std::string> & tenants) {
    static std::once_flag    once; // of the store
    std::vector<std::string> roots;
    for (const std::string & tenant : tenants) {
        roots.push_back(root.of(tenant));
    }
    std::call_once(once, [&] { atlas_setup.store->preload(roots); });
}

// What slots hold they publish again; the rest of what was kept under the root before is adopted.
static void replace(const memory_root & before, const memory_root & root) {
    try {
        for (const std::string & tenant : before.tenants()) {
            atlas_setup.store->adopt(before.of(tenant), root.of(tenant));
        }
    } catch (const std::bad_alloc &) {
        atlas::log(atlas::LogLevel::WARN,
                   "no memory to keep all that was computed before the model's files were hashed");
    }
}

void atlas_begin_hashing(const common_params & params) {
    if (atlas_active()->memory() && !params.model.path.empty()) {
        atlas_active()->root().hash_files(atlas_fingerprint_files(params));
    }
}

void atlas_settle_root(const common_params & params, const llama_context * ctx) {
    auto &     files    = atlas_active()->root().hash_files(atlas_fingerprint_files(params));
    const auto settings = atlas_fingerprint_settings(params, ctx, atlas_setup.store->options().block_tokens,
                                                     atlas_setup.needs_checkpoint());
    const auto tenants  = all_tenants(params);
    files.wait(WAITED_BYTES);
    if (const auto hashes = files.hashes(); !hashes.empty()) {
        const memory_root & root = set_root(atlas_fingerprint(settings, hashes), true);
        preload(root, tenants);
        atlas_active()->root().set(root.text, "");
        return;
    }
    static int          number      = 0;
    const std::string   name        = "provisional " + std::to_string(number++);
    const memory_root & provisional = set_root(hash_sha256_hex(name.data(), name.size()), false);
    atlas_active()->root().set("", "");
    files.then([&files, &provisional, settings, tenants] {
        const auto hashes = files.hashes();
        if (hashes.empty()) {
            atlas_active()->root().set("", ""); // and there will be none: says why
            return;
        }
        const memory_root & root = set_root(atlas_fingerprint(settings, hashes), true);
        replace(provisional, root);
        preload(root, tenants);
        atlas_active()->root().set(root.text, "");
    });
}
