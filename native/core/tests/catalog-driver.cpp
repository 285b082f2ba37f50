#include "catalog-driver.hpp"

namespace memory_test {

using namespace memory;

digest key_of(const std::string & hex) { return *digest_from_hex(hex); }

void catalog_driver::open(const std::function<int64_t(const digest &)> & last_use) {
    catalog = std::make_unique<memory::catalog>(given);
    if (given.shared.place) {
        catalog->open_sharing(SHARED_TIER, given.shared);
    }
    std::vector<digest> keys;
    for (const auto & [key, file] : files) {
        catalog->add_file(file.header, file.bytes, last_use(key));
        keys.push_back(key);
    }
    catalog->update_files(keys.data(), keys.size());
    catalog->counters.index_complete = true;
}

digest catalog_driver::put(memory_entry entry, const std::optional<digest> & supersedes, const memory_access & access) {
    const std::string key = memory_store::key_of(entry.kind, entry.parent, entry.tokens.data(), entry.tokens.size());
    entry.key             = key;
    const auto stored     = std::make_shared<const memory_entry>(std::move(entry));
    known.emplace(key_of(key), *stored);
    catalog->put(stored, key_of(key), key_of(stored->parent), supersedes, access);
    catalog->take_released();
    return key_of(key);
}

match_plan catalog_driver::find(const memory_tokens & tokens, bool need_checkpoint, const memory_access & access) {
    constexpr size_t AT_ONCE = 3;
    prefix_search    search;
    search.root            = key_of(ROOT);
    search.tokens          = tokens.data();
    search.n_tokens        = tokens.size();
    search.need_checkpoint = need_checkpoint;
    search.max_tier        = access.max_tier;
    search.rewind          = access.rewind;
    while (catalog->choose(search, AT_ONCE)) {
    }
    match_plan & plan = search.plan;
    plan.blocks.erase(plan.blocks.begin() + (ptrdiff_t) ((plan.n_tokens + BLOCK - 1) / BLOCK), plan.blocks.end());
    lease_budget::hold reading = catalog->leases->take(plan.bytes_to_read(), {});
    const auto         read    = [&](match_piece & piece) {
        if (!piece.entry) {
            CHECK(files.count(piece.key) == 1 && access.max_tier >= 2);
            piece.entry    = std::make_shared<const memory_entry>(known.at(piece.key));
            piece.was_read = true;
        }
    };
    for (match_piece & piece : plan.blocks) {
        read(piece);
    }
    if (plan.checkpoint) {
        read(*plan.checkpoint);
    }
    while (catalog->use(plan, reading, access, AT_ONCE)) {
    }
    catalog->take_released();
    return std::move(plan);
}

bool catalog_driver::write(bool works) {
    write_queue & queue  = catalog->queue;
    const auto    remove = [&](std::list<stored_file> to_delete) {
        while (!to_delete.empty()) {
            const bool must_go = catalog->must_remove(to_delete.front());
            if (works || !must_go) {
                if (must_go) {
                    files.erase(to_delete.front().key);
                }
                catalog->end_removal(to_delete.front());
                to_delete.pop_front();
            } else {
                queue.push_again(to_delete);
            }
        }
        return works;
    };
    if (auto to_delete = queue.pop_removal(); !to_delete.empty()) {
        remove(std::move(to_delete));
        return true;
    }
    std::map<digest, file> written = {{digest(), file()}}; // made before the catalog relies on it
    if (const auto job = queue.pop(true)) {
        std::optional<write_task> task;
        try {
            task = catalog->begin_write(*job);
        } catch (const std::bad_alloc &) {
            catalog->end_write(*job, false);
            throw;
        }
        if (task) {
            const bool is_written = remove(std::move(task->victims)) && catalog->start_write();
            if (is_written) {
                auto place     = written.extract(written.begin());
                place.key()    = task->key;
                place.mapped() = {std::move(task->header), 0};

                const file_header & header = place.mapped().header;
                place.mapped().bytes       = file_bytes(header.tokens.size(), header.data_bytes);
                files.erase(place.key());
                files.insert(std::move(place));
            }
            catalog->end_write(*job, is_written);
        }
        return true;
    }
    auto       victims = catalog->trim(8);
    const bool is_done = victims.empty();
    remove(std::move(victims));
    return !is_done;
}

} // namespace memory_test
