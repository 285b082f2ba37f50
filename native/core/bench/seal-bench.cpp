// How fast entries are written and read, plain and encrypted: atlas-bench-seal DIR. Prints MB/s, medians and the best of so many
// blocks; in a directory in RAM that is what encryption itself allows.
#include "atlas-seal.hpp"
#include "directory.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <vector>

using namespace atlas;
using namespace atlas::memory;

static constexpr size_t BLOCK_BYTES = 8 << 20; // 256 tokens of a 1B model
static constexpr int    N_BLOCKS    = 32;

static double speed_of(const std::function<void()> & act) {
    const auto began = std::chrono::steady_clock::now();
    act();
    return BLOCK_BYTES / 1e6 / std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

static void print(const char * what, std::vector<double> speeds) {
    std::sort(speeds.begin(), speeds.end());
    std::printf("%s: median %.0f MB/s, best %.0f\n", what, speeds[speeds.size() / 2], speeds.back());
}

static digest key_of(int i) {
    digest key = {};
    key[0]     = (uint8_t) i;
    return key;
}

static bool measure(const std::string & dir, const std::shared_ptr<const sealer> & seal) {
    directory           files(dir, false, seal);
    state_bytes         data(BLOCK_BYTES), back(BLOCK_BYTES);
    std::vector<double> writes, reads;
    bool                is_good = true;
    files.make();
    for (size_t i = 0; i < data.size(); i++) {
        data[i] = (uint8_t) (i * 2654435761u >> 13);
    }
    for (int i = 0; i < N_BLOCKS; i++) {
        file_header header;
        header.key = key_of(i);
        header.tokens.assign(256, i);
        writes.push_back(speed_of([&] { files.write(header, data, [] {}); }));
    }
    for (int i = 0; i < N_BLOCKS; i++) {
        file_header header;
        file_facts  facts;
        reads.push_back(speed_of([&] { is_good &= files.read(key_of(i), header, facts, &back) == read_result::good; }));
        files.remove(key_of(i));
    }
    print(seal ? "encrypted, write" : "plain, write", std::move(writes));
    print(seal ? "encrypted, read" : "plain, read", std::move(reads));
    return is_good && back == data;
}

int main(int argc, char ** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: atlas-bench-seal DIR\n");
        return 2;
    }
    const secret_key secret{std::array<uint8_t, SECRET_BYTES>{1, 2, 3}};
    return measure(argv[1], nullptr) && measure(argv[1], std::make_shared<sealer>(secret, "at rest")) ? 0 : 1;
}
