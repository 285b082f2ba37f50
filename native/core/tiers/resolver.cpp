#include "resolver.hpp"

#include <netdb.h>
#include <sys/socket.h>

#include <condition_variable>
#include <system_error>
#include <thread>

namespace atlas {

namespace {

std::string text_of(const addrinfo & address) {
    char name[NI_MAXHOST];
    if (::getnameinfo(address.ai_addr, address.ai_addrlen, name, sizeof(name), nullptr, 0, NI_NUMERICHOST) != 0) {
        return "";
    }
    return name;
}

// Returns the error of getaddrinfo().
int look_up(const std::string & host, int flags, std::vector<std::string> & found) {
    addrinfo hints    = {};
    hints.ai_flags    = flags;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo * list   = nullptr;
    const int  error  = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
    for (const addrinfo * one = error == 0 ? list : nullptr; one; one = one->ai_next) {
        if (std::string text = text_of(*one); !text.empty()) {
            found.push_back(std::move(text));
        }
    }
    if (error == 0) {
        ::freeaddrinfo(list);
    }
    return error;
}

} // namespace

struct resolver::lookup {
    const std::string        host;
    std::mutex               mutex;
    std::condition_variable  changed;
    bool                     is_done = false;
    int                      error   = 0;
    std::vector<std::string> found;

    explicit lookup(const std::string & host) : host(host) {}

    void run() {
        std::vector<std::string> addresses;
        const int                result = look_up(host, 0, addresses);
        std::lock_guard          held(mutex);
        error   = result;
        found   = std::move(addresses);
        is_done = true;
        changed.notify_all();
    }
};

std::vector<std::string> resolver::addresses(const std::string & host, tier_deadline until) {
    std::vector<std::string> found;
    if (look_up(host, AI_NUMERICHOST, found) == 0) {
        return found;
    }
    std::shared_ptr<lookup> mine;
    {
        std::lock_guard held(mutex);
        if (!under_way) {
            under_way = std::make_shared<lookup>(host);
            try {
                // It may wait long after the tier is gone, and touches nothing but the lookup.
                std::thread([lookup = under_way] { lookup->run(); }).detach();
            } catch (const std::system_error &) {
                under_way = nullptr;
                throw tier_error(tier_failure::unreachable, "no thread can be started to look up its name");
            }
        }
        mine = under_way;
    }
    std::unique_lock held(mine->mutex);
    if (!mine->changed.wait_until(held, until, [&] { return mine->is_done; })) {
        throw tier_error(tier_failure::late, "its name's address was not found in time");
    }
    {
        std::lock_guard all(mutex);
        if (under_way == mine) {
            under_way = nullptr;
        }
    }
    if (mine->error != 0 || mine->found.empty()) {
        throw tier_error(tier_failure::unreachable,
                         std::string("its name has no address: ") +
                             (mine->error != 0 ? ::gai_strerror(mine->error) : "none was given"));
    }
    return mine->found;
}

} // namespace atlas
