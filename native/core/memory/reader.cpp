#include "reader.hpp"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <thread>

namespace atlas::memory {

// Reads a file. Where the whole directory is gone it makes it again, and throws where that fails: then the disk has
// trouble, and the entry is not taken to be lost.
read_result reader::try_read(const digest & key, memory_entry & entry, file_header & header, file_facts & facts) const {
    auto result = state.files.read(key, header, facts, &entry.data);
    if (std::error_code ignored;
        result == read_result::missing && !std::filesystem::is_directory(state.files.blocks_path(), ignored)) {
        state.files.make();
    }
    return result;
}

read_result reader::read(match_piece & piece, bool is_demanded) noexcept {
    std::shared_ptr<memory_entry> entry;
    file_facts                    facts;
    auto                          result = read_result::failed;
    std::string                   problem;
    try {
        file_header header;
        entry  = std::make_shared<memory_entry>();
        result = try_read(piece.key, *entry, header, facts);
        if (result == read_result::failed) {
            problem =
                "cannot read " + state.files.file_path(piece.key) + ": " + std::generic_category().message(facts.error);
        }
        if (result == read_result::good && (header.key != piece.key || header.parent != piece.parent ||
                                            header.kind != piece.kind || header.tokens != piece.tokens)) {
            result = read_result::damaged;
        }
        if (result == read_result::good) {
            entry->kind     = piece.kind;
            entry->parent   = digest_hex(piece.parent);
            entry->tokens   = std::move(header.tokens);
            entry->position = piece.begin;
            entry->key      = digest_hex(piece.key);
            if (is_demanded) {
                state.files.mark_used(piece.key);
            }
        }
    } catch (const std::system_error & error) {
        problem = reason_of(error);
    } catch (const std::bad_alloc &) { // there is no memory for the entry now
        result = read_result::failed;
    }
    const std::lock_guard<std::mutex> held(state.mutex);
    memory_stats &                    counters = state.entries.counters;
    if (!problem.empty()) {
        counters.read_failures++;
        if (is_demanded) {
            state.reading.begin(std::move(problem));
        }
    } else if (result != read_result::failed) {
        state.reading.end();
    }
    switch (result) {
        case read_result::good:
            counters.read_entries++;
            counters.read_bytes += facts.bytes;
            piece.entry    = std::move(entry);
            piece.was_read = true;
            break;
        case read_result::damaged:
            state.entries.remove_damaged_file(piece.key);
            state.work.notify_one();
            break;
        case read_result::foreign:
            counters.foreign_files++;
            state.entries.lose_file(piece.key);
            break;
        case read_result::missing: state.entries.lose_file(piece.key); break;
        case read_result::failed:  break;
    }
    return result;
}

// Reads several entries with several threads: disks are faster with more than one request, and checksums take time.
void reader::read_all(const std::vector<match_piece *> & pieces) {
    constexpr size_t         MAX_THREADS = 4;
    const auto               began       = std::chrono::steady_clock::now();
    std::atomic<size_t>      next{0};
    std::atomic<size_t>      n_wanted{pieces.size()}; // becomes the index of the first that cannot be read
    std::vector<std::thread> others;
    others.reserve(MAX_THREADS);
    const auto work = [&] {
        // entries behind one that cannot be read are of no use
        for (size_t i = next++; i < n_wanted; i = next++) {
            if (read(*pieces[i], true) == read_result::good) {
                continue;
            }
            for (size_t end = n_wanted; i < end && !n_wanted.compare_exchange_weak(end, i);) {
            }
        }
    };
    const size_t n_threads = std::min({MAX_THREADS, pieces.size(), (size_t) std::thread::hardware_concurrency()});
    try {
        while (others.size() + 1 < n_threads) {
            others.emplace_back(work);
        }
    } catch (const std::exception &) { // no thread, or no memory for one: this thread reads the rest
    }
    work();
    for (std::thread & other : others) {
        other.join();
    }
    if (n_wanted == pieces.size()) {
        const std::chrono::duration<double> spent   = std::chrono::steady_clock::now() - began;
        double                              n_bytes = 0;
        for (const match_piece * piece : pieces) {
            n_bytes += (double) piece->bytes;
        }
        cost.add(spent.count(), n_bytes);
    }
}

std::optional<size_t> reader::read_missing(match_plan & plan, std::map<digest, memory_entry_ptr> & held) {
    std::vector<match_piece *> missing;
    const auto                 ask_for = [&](match_piece & piece) {
        if (const auto it = held.find(piece.key); !piece.entry && it != held.end()) {
            piece.entry    = it->second;
            piece.was_read = true;
        }
        if (!piece.entry) {
            missing.push_back(&piece);
        }
    };
    if (plan.checkpoint) {
        ask_for(*plan.checkpoint);
    }
    for (match_piece & piece : plan.blocks) {
        ask_for(piece);
    }
    read_all(missing);
    for (const match_piece * piece : missing) {
        if (piece->entry) {
            held[piece->key] = piece->entry;
        }
    }
    if (plan.checkpoint && !plan.checkpoint->entry) {
        return plan.n_tokens - (plan.n_beyond > 0 ? 0 : 1);
    }
    for (const match_piece & piece : plan.blocks) {
        if (!piece.entry) {
            return piece.begin;
        }
    }
    return std::nullopt;
}

} // namespace atlas::memory
