// Which root a start chooses, where the directory has state of other builds, devices and settings.
#include "atlas-file-hashing.hpp"
#include "atlas-memory-roots.hpp"
#include "atlas-root-status.hpp"
#include "memory-test.hpp"

#include <atomic>
#include <fstream>
#include <iterator>

namespace fs = std::filesystem;
using namespace memory_test;

namespace {

const memory_tokens SAID = some_tokens(1, 2 * BLOCK), OTHER = some_tokens(2, 2 * BLOCK);

// A start: all that a server has of one model.
struct start {
    start(const std::string & dir, const std::string & environment, proof_verdict verdict, bool waits = false,
          const std::string & identity = "format=1 k=f16")
        : status(dir), store(options(dir)), roots(store, status), settings({identity, environment, "a.gguf"}) {
        prover.max_tokens = BLOCK;
        prover.prove = [this, verdict, waits](const std::string & root, const std::vector<memory_tokens> & beginnings,
                                              const std::function<bool()> & is_unwanted) {
            tried.push_back(root);
            for (const auto & tokens : beginnings) {
                CHECK(tokens.size() == BLOCK && store.find(root, tokens.data(), BLOCK, false).n_tokens == BLOCK);
            }
            is_in = true;
            while (waits && !is_unwanted()) {
                std::this_thread::yield();
            }
            return proof{is_unwanted() ? proof_verdict::unknown : verdict, "because"};
        };
        std::ofstream(dir + "/a.gguf") << "weights";
        files = &status.hash_files({dir + "/a.gguf"});
        settle();
    }
    ~start() { roots.stop_proving(); }

    void settle() { roots.settle(*files, settings, {""}, 0, prover); }

    std::string known() { return status.wait(60).root; }
    size_t      found(const memory_tokens & tokens) {
        return store.find(roots.now()->of(""), tokens.data(), tokens.size(), false, roots.now()->limit({})).n_tokens;
    }
    void put(const memory_tokens & tokens) {
        memory_access access;
        std::string   parent = roots.now()->of("");
        for (size_t begin = 0; begin < tokens.size(); begin += BLOCK) {
            memory_entry entry = make_entry(entry_kind::block, parent, slice(tokens, begin, begin + BLOCK), 1000);
            entry.position     = begin;
            parent             = store.put(std::move(entry), "", roots.now()->limit(access));
        }
    }

    root_status    status;
    memory_store   store;
    memory_roots   roots;
    root_settings  settings;
    root_prover    prover;
    file_hashing * files = nullptr;

    std::vector<std::string> tried;
    std::atomic<bool>        is_in{false};
};

// A server of this environment came, kept a conversation, and went. Returns its root.
std::string keep(const std::string & dir, const std::string & environment, const memory_tokens & tokens = SAID,
                 const std::string & identity = "format=1 k=f16") {
    start       one(dir, environment, proof_verdict::differs, false, identity);
    std::string root = one.known();
    one.put(tokens);
    flush(one.store);
    return root;
}

std::string text_of(const std::string & path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

} // namespace

CASE(state_that_agrees_is_adopted_once_and_for_all) {
    const auto root = keep(dir, "build=1");
    {
        start two(dir, "build=2", proof_verdict::agrees);
        CHECK(two.known() == root && two.tried.size() == 1);
        CHECK(two.found(SAID) == SAID.size());
        CHECK(two.status.now().proof.find("build=1") != std::string::npos);
        two.put(OTHER);
        flush(two.store);
    }
    for (const char * environment : {"build=2", "build=1"}) {
        start again(dir, environment, proof_verdict::differs);
        CHECK(again.known() == root && again.tried.empty());
        wait_indexed(again.store);
        CHECK(again.found(SAID) == SAID.size() && again.found(OTHER) == OTHER.size());
        CHECK(again.status.now().proof.empty());
    }
}

CASE(state_that_differs_is_left_alone_once_and_for_all) {
    const auto  root = keep(dir, "build=1");
    std::string own;
    {
        start two(dir, "build=2", proof_verdict::differs);
        own = two.known();
        CHECK(own != root && two.tried.size() == 1 && two.found(SAID) == 0);
        CHECK(two.status.now().proof.find("left alone: because") != std::string::npos);
    }
    start again(dir, "build=2", proof_verdict::agrees);
    CHECK(again.known() == own && again.tried.empty());
    start first(dir, "build=1", proof_verdict::differs);
    CHECK(first.known() == root);
    wait_indexed(first.store);
    CHECK(first.found(SAID) == SAID.size());
}

CASE(what_could_not_be_told_is_tried_again) {
    const auto  root = keep(dir, "build=1");
    std::string own;
    {
        start two(dir, "build=2", proof_verdict::unknown);
        own = two.known();
        CHECK(own != root);
    }
    start again(dir, "build=2", proof_verdict::agrees);
    CHECK(again.known() == root && again.tried.size() == 1);
}

CASE(what_is_computed_while_it_is_tried_is_kept) {
    keep(dir, "build=1");
    start two(dir, "build=2", proof_verdict::agrees, true);
    wait_until([&] { return two.is_in.load(); });
    CHECK(!two.roots.now()->is_known && two.status.now().is_trying);
    CHECK(two.status.now().why_not_on_disk().find("in RAM only") != std::string::npos);
    two.put(OTHER);
    CHECK(two.found(OTHER) == OTHER.size() && two.found(SAID) == 0);
    two.roots.stop_proving(); // the model is unloaded
    CHECK(!two.roots.now()->is_known && two.found(OTHER) == OTHER.size());
    two.prover.prove = [](const auto &, const auto &, const auto &) { return proof{proof_verdict::agrees, ""}; };
    two.settle(); // and loaded again
    two.known();
    CHECK(two.found(OTHER) == OTHER.size() && two.found(SAID) == SAID.size());
}

// Longer than a start waits else.
CASE(where_nothing_else_may_compute_the_start_waits_for_the_trial) {
    const auto root = keep(dir, "build=1");
    start      two(dir, "build=1", proof_verdict::agrees);
    two.settings.environment = "build=2";
    two.prover.is_alone      = true;
    two.prover.prove         = [](const auto &, const auto &, const auto &) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2500));
        return proof{proof_verdict::agrees, ""};
    };
    two.settle();
    CHECK(two.roots.now()->is_known && two.status.now().root == root && !two.status.now().proof.empty());
}

CASE(without_state_there_is_nothing_to_try) {
    const auto root = keep(dir, "build=1");
    fs::remove_all(dir + "/blocks");
    start two(dir, "build=2", proof_verdict::agrees);
    CHECK(two.known() != root && two.tried.empty());
}

CASE(state_of_another_identity_is_never_tried) {
    const auto root = keep(dir, "build=1");
    start      two(dir, "build=1", proof_verdict::agrees, false, "format=1 k=q8_0");
    CHECK(two.known() != root && two.tried.empty());
    wait_until([&] { return !two.status.now().others.empty(); });
    CHECK(two.status.now().others ==
          "The memory has nothing of this model with these settings yet, but 1 conversation of this model with k=f16");
}

CASE(bad_records_are_no_records) {
    const auto root = keep(dir, "build=1");
    const auto file = dir + "/roots/" + root;
    const auto good = text_of(file);
    CHECK(good.find("environment build=1\n") != std::string::npos);

    std::ofstream(file) << "identity\nenvironment build=1";
    CHECK(keep(dir, "build=1") == root); // by its name alone
    CHECK(text_of(file).find(good) != std::string::npos); // said again, behind the line that was cut off

    fs::remove(file);
    fs::create_directory(file);
    fs::create_symlink("/dev/zero", dir + "/roots/" + std::string(64, 'a'));
    std::ofstream(dir + "/roots/" + std::string(64, 'b')) << std::string(1 << 20, 'x');
    std::ofstream(dir + "/roots/a name") << good;
    CHECK(keep(dir, "build=1") == root);
    start two(dir, "build=2", proof_verdict::agrees);
    CHECK(two.known() != root && two.tried.empty());
}
