// How a case of the library's tests is written. A program of them has `return cases::run(argc, argv)` in its main.
#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                               \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (false)

// Defines and registers a case, which is given an empty directory.
#define CASE(name)                                                                                                     \
    static void                      name(const std::string & dir);                                                    \
    static const cases::registration name##_registration(#name, name);                                                 \
    static void                      name([[maybe_unused]] const std::string & dir)

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CASES_ARE_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CASES_ARE_SANITIZED
#endif

namespace cases {

// A sanitizer takes the place of malloc, and tells nothing of what that has.
#ifdef CASES_ARE_SANITIZED
constexpr bool IS_SANITIZED = true;
#else
constexpr bool IS_SANITIZED = false;
#endif

struct registration {
    registration(const char * name, void (*run)(const std::string & dir));
};

// `--list` names the cases; `CASE DIR` runs one in an empty directory. Returns the exit status.
int run(int argc, char ** argv);

// Waits for what another thread does; whoever runs the tests ends what never comes.
template <typename F> void wait_until(F condition) {
    while (!condition()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

} // namespace cases
