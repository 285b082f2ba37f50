#include "resp-socket.hpp"

#include "sigpipe-guard.hpp"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef ATLAS_HAS_OPENSSL
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace atlas::resp {

using namespace std::chrono_literals;

constexpr auto   CONNECT_TIME = 250ms;
constexpr size_t MAX_PIECES   = 64; // of one system call
constexpr size_t MAX_TLS_TURN =
    1 << 20; // bytes of one call of OpenSSL, which may not be given fewer when it is repeated

int milliseconds_until(tier_deadline until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - tier_clock::now()).count();
    return (int) std::clamp<int64_t>(left, 0, 1 << 30);
}

void server_account::fail(tier_failure failure, const std::string & problem) const {
    throw tier_error(failure, address + ": " + problem);
}

// ---- connecting

stream_socket::stream_socket(server_account & account, tier_deadline until) : account(account) {
    const auto by = std::min(until, tier_clock::now() + CONNECT_TIME);
    try {
        const auto  addresses = account.names.addresses(account.host.name, by);
        std::string problem;
        for (size_t i = 0; i < addresses.size() && fd < 0; i++) {
            // Each gets its share, so that one that is silent does not keep those behind it away.
            const auto now   = tier_clock::now();
            const int  error = connect_to(addresses[i], now + (by - now) / (addresses.size() - i));
            problem          = error == 0 ? "" : std::strerror(error);
        }
        if (fd < 0) {
            throw tier_error(tier_clock::now() >= until ? tier_failure::late : tier_failure::unreachable,
                             "no connection: " + problem + ". Is it running, and are host and port right?");
        }
    } catch (const tier_error & error) {
        account.fail(error.kind, error.what());
    }
    try {
        if (account.tls) {
            begin_tls(until);
        }
    } catch (...) {
        close();
        throw;
    }
}

stream_socket::~stream_socket() { close(); }

void stream_socket::close() {
#ifdef ATLAS_HAS_OPENSSL
    SSL_free(tls);
#endif
    if (fd >= 0) {
        ::close(fd);
    }
}

// Returns the error, 0 for none.
int stream_socket::connect_to(const std::string & address, tier_deadline until) {
    addrinfo hints         = {};
    hints.ai_flags         = AI_NUMERICHOST | AI_NUMERICSERV;
    hints.ai_socktype      = SOCK_STREAM;
    addrinfo *        a    = nullptr;
    const std::string port = std::to_string(account.host.port);
    if (::getaddrinfo(address.c_str(), port.c_str(), &hints, &a) != 0) {
        return EADDRNOTAVAIL;
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> freed(a, ::freeaddrinfo);
    fd = ::socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    int       error = ::connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    socklen_t size  = sizeof(error);
    if (error == EINPROGRESS) {
        try {
            wait(POLLOUT, until);
            error = ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
        } catch (const tier_error &) {
            error = ETIMEDOUT;
        }
    }
    const int yes = 1;
    if (error == 0) {
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
    } else {
        ::close(fd);
        fd = -1;
    }
    return error;
}

void stream_socket::wait(short events, tier_deadline until) const {
    pollfd one = {fd, events, 0};
    for (;;) {
        const int timeout = milliseconds_until(until);
        const int n       = ::poll(&one, 1, timeout);
        if (n > 0) {
            return;
        }
        if (n < 0 && errno != EINTR) {
            account.fail(tier_failure::unreachable, std::strerror(errno));
        }
        if (timeout == 0) {
            account.fail(tier_failure::late, "it did not answer in time");
        }
    }
}

// ---- bytes

size_t stream_socket::read(char * buffer, size_t n_bytes) {
#ifdef ATLAS_HAS_OPENSSL
    if (tls) {
        const sigpipe_guard guard;
        ERR_clear_error();
        const int n    = SSL_read(tls, buffer, (int) std::min(n_bytes, MAX_TLS_TURN));
        const int kind = n > 0 ? SSL_ERROR_NONE : SSL_get_error(tls, n);
        if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
            return 0;
        }
        if (n <= 0) {
            fail_tls(kind);
        }
        return (size_t) n;
    }
#endif
    for (;;) {
        const ssize_t n = ::recv(fd, buffer, n_bytes, 0);
        if (n > 0) {
            return (size_t) n;
        }
        if (n == 0) {
            account.fail(tier_failure::unreachable, "it closed the connection");
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 0;
        }
        if (errno != EINTR) {
            account.fail(tier_failure::unreachable, std::string("the connection broke: ") + std::strerror(errno));
        }
    }
}

void stream_socket::write(const std::vector<std::string_view> & pieces, tier_deadline until) {
    if (!tls) {
        write_plain(pieces, until);
        return;
    }
    for (const auto & piece : pieces) {
        write_tls(piece, until);
    }
}

void stream_socket::write_plain(std::vector<std::string_view> pieces, tier_deadline until) {
    for (size_t begin = 0; begin < pieces.size();) {
        iovec  parts[MAX_PIECES];
        msghdr message  = {};
        message.msg_iov = parts;
        for (size_t i = begin; i < pieces.size() && message.msg_iovlen < MAX_PIECES; i++) {
            parts[message.msg_iovlen++] = {const_cast<char *>(pieces[i].data()), pieces[i].size()};
        }
        ssize_t n = ::sendmsg(fd, &message, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            wait(POLLOUT, until);
            continue;
        }
        if (n < 0) {
            account.fail(tier_failure::unreachable, std::string("the connection broke: ") + std::strerror(errno));
        }
        for (; begin < pieces.size() && (size_t) n >= pieces[begin].size(); begin++) {
            n -= (ssize_t) pieces[begin].size();
        }
        if (n > 0) {
            pieces[begin].remove_prefix((size_t) n);
        }
    }
}

void stream_socket::wait_to_read(tier_deadline until) const { wait(events_to_read(), until); }

#ifdef ATLAS_HAS_OPENSSL

short stream_socket::events_to_read() const { return tls && SSL_want_write(tls) ? POLLOUT : POLLIN; }

void stream_socket::begin_tls(tier_deadline until) {
    const sigpipe_guard guard;
    tls = account.tls->connection_to(account.host.name);
    SSL_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_set_connect_state(tls);
    if (SSL_set_fd(tls, fd) != 1) {
        throw std::bad_alloc();
    }
    for (int result = 0; (result = SSL_do_handshake(tls)) != 1;) {
        settle_tls(result, until);
    }
}

void stream_socket::write_tls(std::string_view piece, tier_deadline until) {
    const sigpipe_guard guard;
    while (!piece.empty()) {
        ERR_clear_error();
        const int n = SSL_write(tls, piece.data(), (int) std::min(piece.size(), MAX_TLS_TURN));
        if (n > 0) {
            piece.remove_prefix((size_t) n);
        } else {
            settle_tls(n, until);
        }
    }
}

void stream_socket::settle_tls(int result, tier_deadline until) {
    const int kind = SSL_get_error(tls, result);
    if (kind != SSL_ERROR_WANT_READ && kind != SSL_ERROR_WANT_WRITE) {
        fail_tls(kind);
    }
    wait(kind == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, until);
    ERR_clear_error();
}

void stream_socket::fail_tls(int kind) const {
    const int           saved    = errno;
    const unsigned long error    = ERR_peek_last_error();
    const long          verified = SSL_get_verify_result(tls);
    ERR_clear_error();
    if (verified != X509_V_OK && !SSL_is_init_finished(tls)) {
        account.fail(tier_failure::denied, std::string("its certificate is not accepted: ") +
                                               X509_verify_cert_error_string(verified) +
                                               " (name the file of its authority by ?ca=)");
    }
    if (kind == SSL_ERROR_ZERO_RETURN || (error == 0 && (kind != SSL_ERROR_SYSCALL || saved == 0))) {
        account.fail(tier_failure::unreachable, "it closed the connection");
    }
    const char * reason = error != 0 ? ERR_reason_error_string(error) : std::strerror(saved);
    account.fail(tier_failure::unreachable,
                 std::string(SSL_is_init_finished(tls) ? "the connection broke: " : "no connection over TLS: ") +
                     (reason ? reason : "unknown error") +
                     (SSL_is_init_finished(tls) ? "" : " (does it speak TLS on this port?)"));
}

#else

short stream_socket::events_to_read() const { return POLLIN; }
void  stream_socket::begin_tls(tier_deadline) {}
void  stream_socket::write_tls(std::string_view, tier_deadline) {}
void  stream_socket::settle_tls(int, tier_deadline) {}
void  stream_socket::fail_tls(int) const { account.fail(tier_failure::broken, "no TLS"); }

#endif

} // namespace atlas::resp
