// One connection to a RESP server, with deadlines that hold whatever the server does.
#pragma once

#include "resp-reply.hpp"
#include "resp-socket.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace atlas::resp {

// One command in RESP, whose last words may be the pieces of a value: they are sent from where they are.
std::string command(std::initializer_list<std::string_view> words);

// One thread at a time. Members throw tier_error, with the address, and std::bad_alloc; then the connection is of no use any
// more, as nobody knows which reply comes next.
class connection {
  public:
    // Connects within 250 ms, and says who we are.
    connection(server_account & account, tier_deadline until);
    ~connection();
    connection(const connection &)             = delete;
    connection & operator=(const connection &) = delete;

    // Sends the pieces, one behind the other.
    void send(const std::vector<std::string_view> & pieces, tier_deadline until);

    // Waits for the next reply. An error reply is returned as any other.
    reply read(tier_deadline until);

    // The next reply if it is there; takes what the socket has first.
    std::optional<reply> poll();

    // What to wait for before poll() can have more. -1: it may have more now.
    int   descriptor() const;
    short events() const;

    // Whether it is open, and has nothing that nobody waits for: a reply to more than was asked would be taken for the next.
    bool is_idle() const;

    [[noreturn]] void fail(const reply & got) const; // of an error reply, or one of a wrong kind

  private:
    void                 greet(tier_deadline until);
    std::optional<reply> next();

    server_account & account;
    stream_socket    link;
    reply_reader     replies;
    bool             may_have_more = false;
};

} // namespace atlas::resp
