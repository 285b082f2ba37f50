#include "resp-connection.hpp"

#include "resp-failure.hpp"

#include <poll.h>

namespace atlas::resp {

std::string command(std::initializer_list<std::string_view> words) {
    std::string text = "*" + std::to_string(words.size()) + "\r\n";
    for (const auto & word : words) {
        text += "$" + std::to_string(word.size()) + "\r\n";
        text += word;
        text += "\r\n";
    }
    return text;
}

connection::connection(server_account & account, tier_deadline until)
    : account(account), link(account, until), replies(account.max_value_bytes) {
    greet(until);
}

connection::~connection() = default;

// All in one round trip. No HELLO: its version of the protocol has nothing that is needed here, and proxies lack it.
void connection::greet(tier_deadline until) {
    std::string text;
    if (!account.password.empty()) {
        text += account.user.empty() ? command({"AUTH", account.password})
                                     : command({"AUTH", account.user, account.password});
    }
    text += command({"CLIENT", "SETNAME", "atlas"});
    if (account.database != 0) {
        text += command({"SELECT", std::to_string(account.database)});
    }
    send({text}, until);
    if (!account.password.empty()) {
        if (const reply got = read(until); !got.is_status()) {
            try {
                fail(got);
            } catch (const tier_error & error) {
                throw tier_error(error.kind == tier_failure::broken ? tier_failure::denied : error.kind, error.what());
            }
        }
    }
    // A name is a help to who looks at the server: some do without.
    if (const reply got = read(until);
        got.is_error() && got.text().substr(0, 6) != "NOPERM" && got.text().substr(0, 3) != "ERR") {
        fail(got);
    }
    if (account.database != 0) {
        if (const reply got = read(until); !got.is_status()) {
            fail(got);
        }
    }
}

void connection::send(const std::vector<std::string_view> & pieces, tier_deadline until) {
    try {
        link.write(pieces, until);
    } catch (const tier_error & error) {
        if (error.kind != tier_failure::unreachable) {
            throw;
        }
        // What it said before it hung up is why.
        std::optional<reply> last;
        try {
            last = poll();
        } catch (const tier_error &) {
        }
        if (last && last->is_error()) {
            fail(*last);
        }
        throw;
    }
}

std::optional<reply> connection::next() {
    replies.limit(account.max_value_bytes);
    try {
        return replies.next();
    } catch (const tier_error & error) {
        account.fail(error.kind, error.what());
    }
}

std::optional<reply> connection::poll() {
    for (;;) {
        if (auto got = next()) {
            return got;
        }
        may_have_more = replies.receive([&](char * buffer, size_t n) { return link.read(buffer, n); });
        if (auto got = next()) {
            return got;
        }
        if (!may_have_more) {
            return std::nullopt;
        }
        if (replies.is_in_value()) {
            return std::nullopt; // others get their turn, too
        }
    }
}

reply connection::read(tier_deadline until) {
    for (;;) {
        if (auto got = poll()) {
            return std::move(*got);
        }
        if (tier_clock::now() >= until) {
            account.fail(tier_failure::late, "it did not answer in time");
        }
        if (!may_have_more) {
            link.wait_to_read(until);
        }
    }
}

int connection::descriptor() const { return may_have_more ? -1 : link.descriptor(); }

short connection::events() const { return link.events_to_read(); }

bool connection::is_idle() const {
    pollfd one = {link.descriptor(), POLLIN, 0};
    return !replies.has_rest() && ::poll(&one, 1, 0) == 0;
}

void connection::fail(const reply & got) const {
    if (got.is_error()) {
        throw_failure(account.address, got.text(), account.password);
    }
    account.fail(tier_failure::broken, "it answers with something else than was asked for");
}

} // namespace atlas::resp
