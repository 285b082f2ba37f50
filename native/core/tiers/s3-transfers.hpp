// Requests to S3 by libcurl, several at a time on one thread.
#pragma once

#include "atlas-tier.hpp"
#include "s3-account.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace atlas::s3 {

enum class method {
    get,
    head,
    put,
    create, // put where nothing is
    del,
    list, // names
};

struct request {
    method                                what;
    std::string                           key; // of list: a prefix
    const std::vector<std::string_view> * pieces = nullptr; // of put and create: the value
    std::string                           after; // of list
};

struct response {
    bool       is_there = false; // else there is nothing under that key
    bool       is_taken = false; // of create: there was something
    tier_value value; // of get, and of list as XML
};

// What libcurl keeps between requests: connections above all. One thread at a time.
class transfers {
  public:
    // Both outlive it. Throws std::bad_alloc.
    transfers(const account & of, const std::string & address, uint64_t max_value_bytes);
    ~transfers();
    transfers(const transfers &)             = delete;
    transfers & operator=(const transfers &) = delete;

    // The limit of values of requests that begin from now on.
    void limit(uint64_t max_bytes) { max_value_bytes = max_bytes; }

    // Makes the requests, `n_at_once` at a time, and hands the responses to done() in their order, as soon as each is there.
    // Ends where done() returns false; then those behind are given up. Throws tier_error, with the address.
    void run(const std::vector<request> & requests, size_t n_at_once, tier_deadline until,
             const std::function<bool(size_t index, response got)> & done);

  private:
    struct transfer;
    struct running;

    const account &     of;
    const std::string & address;
    uint64_t            max_value_bytes;
    void *              multi; // a CURLM
};

} // namespace atlas::s3
