// What a program's log gets of llama.cpp's lines.
#include "api-test.hpp"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <iterator>

using namespace api;

// Standard error goes to a file as long as this lives.
class captured {
  public:
    explicit captured(const std::string & path) : path(path), kept(dup(STDERR_FILENO)) {
        std::fflush(stderr);
        CHECK(std::freopen(path.c_str(), "w", stderr) != nullptr);
    }

    ~captured() {
        std::fflush(stderr);
        dup2(kept, STDERR_FILENO);
        close(kept);
    }

    std::string text() const {
        std::ifstream file(path);
        return {std::istreambuf_iterator<char>(file), {}};
    }

  private:
    std::string path;
    int         kept;
};

CASE(a_level_holds_for_the_lines_of_llama_cpp) {
    const auto  model = load_model();
    std::string text;
    {
        const captured log(dir + "/log");
        auto           config = config_of(dir);
        const auto     serve  = [&](const std::vector<std::string> & further) {
            std::vector<std::string> arguments = {"-c", "256", "-t", "1"};
            arguments.insert(arguments.end(), further.begin(), further.end());
            atlas::AtlasServer on(config);
            llama_log_set(nullptr, nullptr); // as in a program that never set any
            on.initialize(model.get(), {arguments, model_path()});
            (void) on.handle_completion_request(says("x"));
        };
        serve({"-np", "1"});
        config.log_level = atlas::LogLevel::WARN;
        serve({"-np", "2"});
        config.log_level = atlas::LogLevel::INFO;
        serve({"-np", "3"});
        config.log_level = atlas::LogLevel::ERROR;
        serve({"-np", "5", "-lv", "3"});
        // lines are written in their order, by a thread
        cases::wait_until([&] { return contains(text = log.text(), "n_slots = 5"); });
    }
    CHECK(!contains(text, "n_slots = 1") && !contains(text, "n_slots = 2"));
    CHECK(contains(text, "n_slots = 3") && contains(text, "[ATLAS] Context pool initialized with 3 contexts"));
    CHECK(!contains(text, "Context pool initialized with 5 contexts"));
    CHECK(!contains(text, "constructing llama_context")); // of libllama, and too much for llama-server's log as well
}

CASE(a_programs_own_callback_stays) {
    static std::atomic<int> n_lines{0};
    const auto              model = load_model();
    llama_log_set([](ggml_log_level, const char *, void *) { n_lines++; }, nullptr);
    atlas::AtlasServer on(config_of(dir));
    on.initialize(model.get());
    CHECK(n_lines > 0);
}
