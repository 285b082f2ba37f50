// What compression makes of the entries under a memory path, and how fast by the time of one core, whoever else is at work:
// build/bin/atlas-bench-compression DIR.
#include "entry-file.hpp"
#include "shuffled-zstd.hpp"

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <vector>

using namespace atlas::memory;

static double seconds_since(std::clock_t began) { return (double) (std::clock() - began) / CLOCKS_PER_SEC; }

int main(int argc, char ** argv) {
    uint64_t                   n_files = 0, n_bytes = 0, n_compressed = 0, n_kept = 0;
    double                     there_s = 0, back_s = 0;
    std::map<uint32_t, size_t> strides;
    for (const auto & file : std::filesystem::recursive_directory_iterator(argc > 1 ? argv[1] : ".")) {
        if (file.path().extension() != ".kv") {
            continue;
        }
        std::ifstream              stream(file.path(), std::ios::binary);
        const std::vector<uint8_t> all((std::istreambuf_iterator<char>(stream)), {});
        file_header                header;
        if (decode_header(all.data(), all.size(), all.size(), header) != file_state::good ||
            header.kind != atlas::entry_kind::block || header.data_bytes == 0) {
            continue;
        }
        const uint8_t * data  = all.data() + (all.size() - header.data_bytes);
        const auto      began = std::clock();
        const auto      made  = compress(data, header.data_bytes);
        there_s += seconds_since(began);
        n_files++;
        n_bytes += header.data_bytes;
        n_compressed += made ? made->frame.size() : header.data_bytes;
        strides[made ? made->stride : 0]++;
        if (made) {
            std::vector<uint8_t> back(header.data_bytes);
            const auto           before = std::clock();
            if (!decompress(made->frame.data(), made->frame.size(), made->stride, back.data(), back.size()) ||
                checksum(back.data(), back.size()) != header.data_checksum) {
                std::fprintf(stderr, "%s does not come back\n", file.path().c_str());
                return 1;
            }
            back_s += seconds_since(before);
            n_kept += header.data_bytes;
        }
    }
    if (n_files == 0) {
        std::fprintf(stderr, "there are no blocks under %s\n", argc > 1 ? argv[1] : ".");
        return 1;
    }
    std::printf("%zu blocks, %.1f MiB: to %.1f %%, at %.0f MB/s, back at %.0f MB/s\n", (size_t) n_files,
                (double) n_bytes / (1 << 20), 100.0 * (double) n_compressed / (double) n_bytes,
                (double) n_bytes / 1e6 / there_s, back_s > 0 ? (double) n_kept / 1e6 / back_s : 0.0);
    for (const auto & [stride, n] : strides) {
        std::printf("  stride %u: %zu\n", stride, n);
    }
    return 0;
}
