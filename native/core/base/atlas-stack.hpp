// Ends code that recurses over what a request holds before the thread's stack ends. Touches the calling thread's own
// data only; any thread.
//
// Header-only and without types of ATLAS, as atlas-limits.hpp.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>

namespace atlas {

// A request asks for more than a server allows. Becomes a 400 with its text.
struct limit_error : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

constexpr size_t STACK_RESERVE = 256 << 10; // bytes: what code that does not recurse needs, and an exception

struct stack_bounds {
    const char * floor = nullptr; // the stack grows down, and must not be used below
    size_t       bytes = 0;       // of the whole stack
};

// Of the calling thread. The main thread's first call reads a file of /proc.
inline const stack_bounds & own_stack() {
    static thread_local const stack_bounds bounds = [] {
        stack_bounds   found;
        pthread_attr_t attributes;
        if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
            void * lowest = nullptr;
            if (pthread_attr_getstack(&attributes, &lowest, &found.bytes) == 0) {
                found.floor = static_cast<const char *>(lowest) + STACK_RESERVE;
            }
            pthread_attr_destroy(&attributes);
        }
        return found;
    }();
    return bounds;
}

[[noreturn]] inline void fail_of_stack(const std::string & what) {
    throw limit_error(what + " is too long or nested too deep: following it takes more than the " +
                      std::to_string(own_stack().bytes >> 10) + " KiB of stack that a thread of this server has");
}

// At each level of what recurses. Throws limit_error where the stack ends. what: begins the message.
inline void check_stack(const char * what) {
    if (static_cast<const char *>(__builtin_frame_address(0)) < own_stack().floor) {
        fail_of_stack(what);
    }
}

// How many steps the calling thread's regular expressions may still take.
inline int64_t & regex_steps_left() {
    static thread_local int64_t steps = std::numeric_limits<int64_t>::max();
    return steps;
}

// Limits them, for its lifetime.
class regex_steps {
  public:
    explicit regex_steps(int64_t limit) { regex_steps_left() = limit; }
    ~regex_steps() { regex_steps_left() = std::numeric_limits<int64_t>::max(); }
    regex_steps(const regex_steps &)             = delete;
    regex_steps & operator=(const regex_steps &) = delete;
};

// A random access iterator for std::regex, which recurses for each character that it matches: throws limit_error before
// the stack ends. IsCounted: for expressions that a request brings. They may recurse between two characters, and take
// exponential time: each look at a character is checked, and is a step. Not for use by two threads.
template <typename Base, bool IsCounted = false> class checked_iterator {
  public:
    using iterator_category = std::random_access_iterator_tag;
    using value_type        = typename std::iterator_traits<Base>::value_type;
    using difference_type   = typename std::iterator_traits<Base>::difference_type;
    using pointer           = typename std::iterator_traits<Base>::pointer;
    using reference         = typename std::iterator_traits<Base>::reference;

    checked_iterator() = default;
    checked_iterator(Base at) : at(at), floor(own_stack().floor) {}

    reference operator*() const {
        if constexpr (IsCounted) {
            check();
            if (--regex_steps_left() < 0) {
                throw limit_error("the pattern of a grammar trigger takes too many steps in the text generated so far");
            }
        }
        return *at;
    }

    checked_iterator & operator++() {
        check();
        ++at;
        return *this;
    }
    checked_iterator & operator--() {
        --at;
        return *this;
    }
    checked_iterator operator++(int) {
        checked_iterator before = *this;
        ++at;
        return before;
    }
    checked_iterator operator--(int) {
        checked_iterator before = *this;
        --at;
        return before;
    }
    checked_iterator & operator+=(difference_type n) {
        at += n;
        return *this;
    }
    checked_iterator & operator-=(difference_type n) {
        at -= n;
        return *this;
    }
    reference        operator[](difference_type n) const { return *(*this + n); }
    checked_iterator operator+(difference_type n) const { return checked_iterator(*this) += n; }
    checked_iterator operator-(difference_type n) const { return checked_iterator(*this) -= n; }
    difference_type  operator-(const checked_iterator & other) const { return at - other.at; }
    bool             operator==(const checked_iterator & other) const { return at == other.at; }
    bool             operator!=(const checked_iterator & other) const { return at != other.at; }
    bool             operator<(const checked_iterator & other) const { return at < other.at; }

  private:
    void check() const {
        if (static_cast<const char *>(__builtin_frame_address(0)) < floor) {
            fail_of_stack("a text without the breaks that the regular expression looks for");
        }
    }

    Base         at{};
    const char * floor = nullptr;
};

} // namespace atlas
