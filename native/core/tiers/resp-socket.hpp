// A TCP connection to a server, plain or over TLS, that never waits longer than it is told.
#pragma once

#include "resolver.hpp"
#include "resp-tls.hpp"

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace atlas::resp {

// How a server is reached. Any thread.
struct server_account {
    std::string                       address; // of the tier, or of a server of the cluster; for errors
    tier_host                         host;
    std::string                       user, password;
    int                               database = 0;
    std::shared_ptr<const tls_client> tls; // null: plain TCP
    std::atomic<uint64_t>             max_value_bytes = 0;
    resolver                          names;

    [[noreturn]] void fail(tier_failure failure, const std::string & problem) const; // "<address>: <problem>"
};

// One thread at a time. Members throw tier_error, with the address.
class stream_socket {
  public:
    // Connects, within 250 ms.
    stream_socket(server_account & account, tier_deadline until);
    ~stream_socket();
    stream_socket(const stream_socket &)             = delete;
    stream_socket & operator=(const stream_socket &) = delete;

    // Up to so many bytes that are there; 0: none are. Throws if the server closed the connection.
    size_t read(char * buffer, size_t n_bytes);

    // Sends all pieces.
    void write(const std::vector<std::string_view> & pieces, tier_deadline until);

    // Waits until read() may have more.
    void wait_to_read(tier_deadline until) const;

    int   descriptor() const { return fd; }
    short events_to_read() const; // what poll() has to wait for before read() may have more

  private:
    void close();
    int  connect_to(const std::string & address, tier_deadline until);
    void begin_tls(tier_deadline until);
    void write_plain(std::vector<std::string_view> pieces, tier_deadline until);
    void write_tls(std::string_view piece, tier_deadline until);
    void wait(short events, tier_deadline until) const;

    // Waits until a call of OpenSSL can be done again, or throws what went wrong.
    void              settle_tls(int result, tier_deadline until);
    [[noreturn]] void fail_tls(int kind) const;

    const server_account & account;
    int                    fd  = -1;
    ssl_st *               tls = nullptr;
};

// Milliseconds for poll(), rounded up; 0: it is late.
int milliseconds_until(tier_deadline until);

} // namespace atlas::resp
