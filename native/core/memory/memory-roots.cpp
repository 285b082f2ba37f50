#include "atlas-file-hashing.hpp"
#include "atlas-log.hpp"
#include "atlas-memory-roots.hpp"
#include "atlas-root-status.hpp"
#include "hash/hash.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <new>
#include <sstream>
#include <system_error>
#include <utility>

namespace atlas {

// The start waits for the hashing of so many bytes: it takes a fraction of a second, as the model has just been read,
// and without the hash conversations would stay in RAM at first.
static const uint64_t WAITED_BYTES = 64 << 20;

// So long the start waits until it was tried whether state of another build or device fits: small models need less, and then
// the first request finds what was kept.
static constexpr std::chrono::seconds WAITED_FOR_PROOF{2};

static constexpr size_t N_BEGINNINGS = 2; // of conversations that are tried

static std::string sha256_of(const std::string & text) { return hash_sha256_hex(text.data(), text.size()); }

// The lineage with what stands for its adapters in the place of their numbers, which are those of one start.
static std::string named(const std::string & lineage, const std::vector<std::string> & adapters) {
    std::string text;
    for (size_t at = 0; at < lineage.size();) {
        const size_t end        = std::min(lineage.find(' ', at + 1), lineage.size());
        const bool   has_number = lineage[at] == ' ' && at + 1 < end && std::isdigit((unsigned char) lineage[at + 1]);
        const size_t number     = has_number ? std::stoul(lineage.substr(at + 1)) : adapters.size();
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

//
// the choice of a root
//

struct memory_roots::found {
    root_settings            settings;
    std::vector<std::string> lineages;
    std::vector<std::string> adapters; // hashes of their files
    root_prover              prover;
    root_record              record; // of the root that this identity and environment have by themselves
    std::vector<root_record> candidates; // of this identity, but computed in other environments
    std::vector<root_record> others;
    bool                     is_chosen = false; // the root, without trying any

    found(const root_settings & given, const std::vector<std::string> & lineages, std::vector<std::string> hashes,
          size_t n_adapters, root_prover prover)
        : settings(given), lineages(lineages), prover(std::move(prover)) {
        const auto first = hashes.end() - (std::ptrdiff_t) n_adapters;
        adapters.assign(first, hashes.end());
        hashes.erase(first, hashes.end());
        std::string files;
        for (const std::string & hash : hashes) {
            files += " file=" + hash;
        }
        record.files        = sha256_of(files);
        record.identity     = sha256_of(settings.identity + files);
        record.root         = sha256_of(settings.identity + files + " " + settings.environment);
        record.model        = settings.model;
        record.settings     = settings.identity;
        record.environments = {settings.environment};
    }

    std::unique_ptr<memory_root> make(const std::string & root) const {
        return std::make_unique<memory_root>(root, true, adapters);
    }
    // Under which state of all lineages is kept, with such a root; or that of what drafts for them.
    std::vector<std::string> roots_below(const std::string & root, const std::string & draft = "") const {
        const auto               made = make(root);
        std::vector<std::string> roots;
        for (const std::string & lineage : lineages) {
            roots.push_back(made->of(lineage + draft));
        }
        return roots;
    }
    std::vector<std::string> all_roots_below(const std::string & root) const {
        std::vector<std::string> roots = roots_below(root);
        if (!settings.draft.empty()) {
            const auto drafts = roots_below(root, settings.draft);
            roots.insert(roots.end(), drafts.begin(), drafts.end());
        }
        return roots;
    }
    std::string all_settings() const { return settings.identity + " " + settings.environment; }
};

memory_roots::memory_roots(memory_store & store, root_status & status)
    : store(store), status(status), records(store.options().path, store.options().seal) {}

memory_roots::~memory_roots() {
    stop_proving();
    status.give_up();
}

const memory_root & memory_roots::set(std::unique_ptr<memory_root> root) {
    const std::lock_guard<std::mutex> held(mutex);
    made.push_back(std::move(root));
    current.store(made.back().get(), std::memory_order_release);
    return *made.back();
}

void memory_roots::set_provisional() {
    if (!now() || now()->is_known) {
        set(std::make_unique<memory_root>(sha256_of("provisional " + std::to_string(n_provisional++)), false));
    }
}

// Moves to the root what was kept under the one before. What sequences hold need not be moved: they capture it again.
void memory_roots::replace(const memory_root & before, const memory_root & root) {
    try {
        for (const std::string & lineage : before.lineages()) {
            store.adopt(before.of(lineage), root.of(lineage));
        }
    } catch (const std::bad_alloc &) {
        log(LogLevel::WARN, "no memory to keep all that was computed before the root was known");
    }
}

void memory_roots::become(const found & what, const std::string & root) {
    const memory_root * before = now();
    const memory_root & now    = set(what.make(root));
    if (before && !before->is_known) {
        replace(*before, now);
    }
    std::call_once(preloaded, [&] { store.preload(what.all_roots_below(root)); });
    status.set(root, "");
}

int memory_roots::begin_to_settle() {
    const std::lock_guard<std::mutex> held(mutex);
    is_unwanted = false;
    return ++n_settled;
}

void memory_roots::settle(file_hashing & files, const root_settings & settings,
                          const std::vector<std::string> & lineages, size_t n_adapters, const root_prover & prover) {
    stop_proving();
    const int settled = begin_to_settle();
    files.wait(WAITED_BYTES);
    const auto now = files.progress();
    if (now.is_done && now.problem.empty()) {
        decide(std::make_shared<found>(settings, lineages, files.hashes(), n_adapters, prover), settled, false);
        wait_for_proof(prover.is_alone);
        return;
    }
    set_provisional();
    status.set("", "");
    files.then([this, &files, settings, lineages, n_adapters, prover, settled] {
        const auto hashes = files.hashes();
        if (hashes.empty()) {
            status.set("", ""); // there will be no root: this has the reason logged
            return;
        }
        decide(std::make_shared<found>(settings, lineages, hashes, n_adapters, prover), settled, true);
    });
}

void memory_roots::wait_for_proof(bool is_alone) {
    std::unique_lock<std::mutex> held(mutex);
    const auto                   is_done = [this] { return !is_proving; };
    if (!proven.wait_for(held, WAITED_FOR_PROOF, is_done) && is_alone) {
        log(LogLevel::INFO, "the start waits until it was tried whether state of another build or device fits: "
                            "this model's device computes for one context at a time");
        proven.wait(held, is_done);
    }
}

// By the thread that loads the model, or, when the model may be computing already, the one that hashes.
void memory_roots::decide(std::shared_ptr<found> what, int settled, bool is_serving) {
    for (root_record & known : records.read()) {
        const auto & all = known.environments;
        if (known.identity != what->record.identity) {
            what->others.push_back(std::move(known));
        } else if (std::find(all.begin(), all.end(), what->settings.environment) == all.end()) {
            what->candidates.push_back(std::move(known));
        } else if (!std::exchange(what->is_chosen, true)) {
            become(*what, known.root);
        }
    }
    if (!what->is_chosen && (what->candidates.empty() || !what->prover.prove)) {
        what->is_chosen = true;
        records.add(what->record);
        become(*what, what->record.root);
    } else if (!what->is_chosen && what->prover.is_alone && is_serving) {
        what->is_chosen = true; // but no record is made, so that the next start tries it
        status.set_proof(
            "State of another build or device is left alone until the next start, which tries whether it fits: "
            "while this server serves, nothing else may compute with the model's device");
        become(*what, what->record.root);
    } else if (!what->is_chosen) {
        set_provisional();
        status.set_trying();
    }
    look_around(std::move(what), settled);
}

// Nothing is done for a model that was unloaded meanwhile: it is settled anew.
void memory_roots::look_around(std::shared_ptr<const found> what, int settled) {
    if (what->candidates.empty() && what->others.empty()) {
        return;
    }
    try {
        const std::lock_guard<std::mutex> held(mutex);
        if (settled == n_settled && !is_unwanted) {
            is_proving = !what->is_chosen;
            looking    = std::thread([this, what] {
                if (!what->is_chosen) {
                    prove(*what);
                }
                {
                    const std::lock_guard<std::mutex> held(mutex);
                    is_proving = false;
                }
                proven.notify_all();
                tell_of_others(*what);
            });
        }
        return;
    } catch (const std::system_error & error) {
        logf(LogLevel::WARN, "there is no thread to try state of other roots: %s", error.what());
    }
    if (!what->is_chosen) {
        become(*what, what->record.root);
    }
}

void memory_roots::stop_proving() {
    std::thread ending;
    {
        const std::lock_guard<std::mutex> held(mutex);
        is_unwanted = true;
        ending.swap(looking);
    }
    if (ending.joinable()) {
        ending.join();
    }
}

proof memory_roots::try_root(const found & what, const std::string & root) {
    proof result = {proof_verdict::differs, ""}; // where there is nothing
    for (const std::string & below : what.roots_below(root)) {
        const auto & prover = what.prover;
        const auto   kept   = store.look_below(below, N_BEGINNINGS, prover.max_tokens, prover.need_checkpoint);
        if (!kept.beginnings.empty()) {
            return prover.prove(below, kept.beginnings, [this] { return is_unwanted.load(); });
        }
        if (kept.entries > 0) {
            result = {proof_verdict::unknown, "it has no conversation that is short enough to be computed again"};
        }
    }
    return result;
}

// Where nothing can be told of a root, the next start tries it again.
void memory_roots::prove(const found & what) {
    if (!store.wait_for_index([this] { return is_unwanted.load(); })) {
        return;
    }
    bool        all_told = true;
    std::string said;
    for (const root_record & other : what.candidates) {
        const proof       result = try_root(what, other.root);
        const std::string by     = other.environment();
        if (is_unwanted) {
            return;
        }
        if (result.verdict == proof_verdict::agrees) {
            said = "State that was computed by " + by + " is used: " + result.why;
            log(LogLevel::INFO, said);
            status.set_proof(said);
            root_record joined = what.record;
            joined.root        = other.root;
            records.add(joined);
            become(what, other.root);
            return;
        }
        all_told = all_told && result.verdict == proof_verdict::differs;
        if (!result.why.empty()) {
            said += (said.empty() ? "" : "; ") + std::string("State that was computed by ") + by +
                    " is left alone: " + result.why;
        }
    }
    if (!said.empty()) {
        log(LogLevel::WARN, said);
        status.set_proof(said);
    }
    if (all_told) {
        records.add(what.record);
    }
    become(what, what.record.root);
}

// Whether a word of these settings is no word of those.
static std::string difference(const std::string & settings, const std::string & from) {
    std::set<std::string> words;
    std::istringstream    known(from), read(settings);
    std::string           word, text;
    while (known >> word) {
        words.insert(word);
    }
    while (read >> word) {
        text += words.count(word) > 0 ? "" : (text.empty() ? "" : " ") + word;
    }
    return text;
}

void memory_roots::tell_of_others(const found & what) {
    constexpr size_t MAX_TOLD = 4; // kinds
    const auto       unwanted = [this] { return is_unwanted.load(); };
    const auto       own      = what.roots_below(now()->text);
    const auto       has_any  = [this](const std::string & root) { return store.has_any_below(root); };
    const auto       count    = [&](const std::string & root) {
        uint64_t n = 0;
        for (const std::string & below : what.roots_below(root)) {
            n += unwanted() ? 0 : store.look_below(below, 0, 0, false).conversations;
        }
        return n;
    };
    if (!store.wait_for_index(unwanted) || !now()->is_known || std::any_of(own.begin(), own.end(), has_any)) {
        return;
    }
    std::vector<std::string> kinds;
    for (const auto * records : {&what.candidates, &what.others}) {
        for (const root_record & other : *records) {
            const uint64_t n = kinds.size() < MAX_TOLD ? count(other.root) : 0;
            if (n > 0) {
                const bool is_same = other.files == what.record.files;
                const auto apart   = difference(other.settings + " " + other.environment(), what.all_settings());
                kinds.push_back(std::to_string(n) + (n == 1 ? " conversation" : " conversations") + " of " +
                                (is_same ? "this model with " + apart : other.model));
            }
        }
    }
    if (!kinds.empty() && !unwanted()) {
        std::string text = "The memory has nothing of this model with these settings yet, but";
        for (size_t i = 0; i < kinds.size(); i++) {
            text += (i == 0 ? " " : ", ") + kinds[i];
        }
        log(LogLevel::INFO, text);
        status.set_others(text);
    }
}

} // namespace atlas
