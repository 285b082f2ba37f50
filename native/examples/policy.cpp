// A memory policy of the program's own, and what it changes. policy MODEL MEMORY_DIRECTORY [own]: reads a handbook twice, then many
// letters, with room for few of them, and asks how much of the handbook is still known. With `own` all of it is.
#include "atlas-memory-policy.hpp"
#include "atlas-server.hpp"
#include "model.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <unordered_map>

// In RAM, what was used again stays before what was used once, however long ago that was.
class keep_what_was_used_again : public atlas::AtlasMemoryPolicy {
  public:
    std::atomic<bool> has_kept{false};

    std::vector<int64_t> evict_order(int tier, const std::vector<atlas::MemoryTouch> & touches,
                                     const std::vector<atlas::MemoryEviction> & evictions) override {
        if (tier != 1) {
            return {}; // the disk: as the server thinks best
        }
        for (const auto & eviction : evictions) {
            n_uses.erase(eviction.key);
        }
        std::vector<int64_t> priorities;
        for (const auto & touch : touches) {
            const bool is_used_again = ++n_uses[touch.key] > 1;
            priorities.push_back(is_used_again ? touch.now + LONG : touch.now);
            has_kept = has_kept || is_used_again;
        }
        return priorities;
    }

  private:
    static constexpr int64_t LONG = int64_t{1} << 50; // in touches

    std::unordered_map<uint64_t, int> n_uses; // of what is in RAM
};

// A text of 500 tokens, as different from the others as their numbers.
static atlas::json text_number(int number) {
    atlas::json tokens;
    for (int i = 0; i < 500; i++) {
        tokens.push_back(5 + (number * 37 + i * (number + 3)) % 900);
    }
    return tokens;
}

// Returns how many tokens of the text were known.
static int read(atlas::AtlasServer & server, int number) {
    const auto answer = server.handle_completion_request({{"prompt", text_number(number)}, {"max_tokens", 1}});
    if (answer.contains("error")) {
        throw std::runtime_error(answer["error"]["message"].get<std::string>());
    }
    return answer["timings"]["cache_n"];
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s MODEL MEMORY_DIRECTORY [own]\n", argv[0]);
        return 1;
    }
    try {
        const auto loaded = load_model(argv[1]);

        atlas::AtlasServerConfig config;
        config.memory_save_path  = argv[2];
        config.context_pool_size = 1;
        config.block_tokens      = 64;
        config.l1_cache_size     = 8 << 20; // five texts, with a model of 3 KiB of state a token
        config.l2_cache_size     = 0; // no disk, where the handbook would be found again

        std::shared_ptr<keep_what_was_used_again> policy;
        if (argc > 3 && argv[3] == std::string("own")) {
            policy = std::make_shared<keep_what_was_used_again>();
        }
        atlas::AtlasServer server(config);
        // without the file's name: nothing of another start is looked for, and keys are what they stay from the beginning
        server.initialize(loaded.get(), {{"-c", "2048"}, "", policy});

        const int HANDBOOK = 0;
        read(server, HANDBOOK);
        read(server, 1);
        read(server, HANDBOOK);
        while (policy && !policy->has_kept) { // it is asked a moment after a request
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        for (int letter = 2; letter < 22; letter++) {
            read(server, letter);
        }
        std::printf("%d tokens of the handbook were known\n", read(server, HANDBOOK));
        std::printf("%s\n", server.handle_status_request()["data"]["memory_policy"].dump().c_str());
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
