// Tests of the memory. `atlas-memory-test --list` names the cases; `atlas-memory-test CASE DIR` runs one in an empty
// directory; `writer DIR` puts and flushes until it is killed and prints what is durable; `verify DIR` looks for it.
#include "memory-test.hpp"

#include <unistd.h>

#include <iostream>

namespace memory_test {

static int run_writer(const std::string & dir) {
    memory_options durable = options(dir, 64 * MiB, 65536 * MiB);
    durable.sync_each      = true;
    memory_store store(durable);
    for (uint32_t seed = (uint32_t) ::getpid();; seed += 100003) {
        std::vector<std::string> keys = {ROOT};
        std::string              tail;
        // a conversation of two turns, the first of which ends in a tail that the second extends
        for (const size_t n : {BLOCK + 5, BLOCK + 9, 2 * BLOCK + 3}) {
            const auto tokens = some_tokens(seed, n);
            while (keys.size() * BLOCK <= n) {
                const size_t begin = (keys.size() - 1) * BLOCK;
                keys.push_back(
                    put(store, entry_kind::block, keys.back(), slice(tokens, begin, begin + BLOCK), 5000, tail));
                tail.clear();
            }
            tail = put(store, entry_kind::tail, keys.back(), slice(tokens, (keys.size() - 1) * BLOCK, n), 3000, tail);
            if (!store.flush(60).complete) {
                return 1;
            }
            std::cout << seed << ' ' << n << std::endl;
        }
    }
}

static int run_verify(const std::string & dir) {
    memory_store store(options(dir, 0, 65536 * MiB));
    wait_indexed(store);
    uint32_t seed;
    size_t   n;
    while (std::cin >> seed >> n) {
        CHECK(find(store, some_tokens(seed, n)).n_tokens == n);
    }
    CHECK(store.stats().bad_checksum == 0 && store.stats().foreign_files == 0);
    for (const auto & path : files_of(dir)) {
        CHECK(path.extension() == ".kv");
    }
    return 0;
}

} // namespace memory_test

int main(int argc, char ** argv) {
    using namespace memory_test;
    const std::string name = argc > 1 ? argv[1] : "";
    if (argc == 3 && name == "writer") {
        return run_writer(argv[2]);
    }
    if (argc == 3 && name == "verify") {
        return run_verify(argv[2]);
    }
    return cases::run(argc, argv);
}
