#include "s3-transfers.hpp"

#include "atlas-record-tier.hpp"
#include "s3-failure.hpp"
#include "sigpipe-guard.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>

namespace atlas::s3 {

using namespace std::chrono_literals;

constexpr auto   CONNECT_TIME    = 2s; // with name servers and TLS, and that far away
constexpr size_t MAX_ERROR_BYTES = 16 << 10; // of a body that is an error
constexpr long   BUFFER_BYTES    = 512 << 10;

namespace {

long milliseconds_until(tier_deadline until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - tier_clock::now()).count();
    return (long) std::clamp<int64_t>(left, 1, 1 << 30); // 0 would be no limit
}

} // namespace

// One request and what came of it so far. libcurl has pointers to it.
struct transfers::transfer {
    transfer(const transfers & of, const request & asked, tier_deadline until)
        : max_value_bytes(of.max_value_bytes), asked(asked), easy(curl_easy_init()) {
        if (!easy) {
            throw std::bad_alloc();
        }
        prepare(of.of, until);
    }
    transfer(const transfer &)             = delete;
    transfer & operator=(const transfer &) = delete;
    ~transfer() {
        curl_easy_cleanup(easy);
        curl_slist_free_all(headers);
    }

    void prepare(const account & of, tier_deadline until);
    void prepare_method();
    void add_header(const std::string & line);

    static size_t on_header(char * line, size_t size, size_t n, void * self);
    static size_t on_body(char * bytes, size_t size, size_t n, void * self);
    static size_t on_read(char * buffer, size_t size, size_t n, void * self);
    static int    on_seek(void * self, curl_off_t offset, int origin);

    bool   has_value() const { return asked.what == method::get || asked.what == method::list; }
    size_t take(std::string_view bytes);
    void   make_room(uint64_t n_bytes);

    response result(const std::string & address, CURLcode code, tier_deadline until);

    const uint64_t  max_value_bytes;
    const request & asked;
    CURL * const    easy;
    curl_slist *    headers                  = nullptr;
    char            problem[CURL_ERROR_SIZE] = "";

    std::shared_ptr<char[]> value;
    uint64_t                room = 0, received = 0;
    bool                    is_too_large = false;
    std::string             error; // the body of a response that is one
    size_t                  piece = 0, of_piece = 0; // how far put has come
};

void transfers::transfer::add_header(const std::string & line) {
    curl_slist * longer = curl_slist_append(headers, line.c_str());
    if (!longer) {
        throw std::bad_alloc();
    }
    headers = longer;
}

void transfers::transfer::prepare(const account & of, tier_deadline until) {
    const bool        is_list = asked.what == method::list;
    const std::string after   = asked.after.empty() ? "" : of.name_of(asked.key + asked.after);
    const std::string url =
        is_list ? of.list_url(of.name_of(asked.key), after, record_tier::MAX_NAMES) : of.url_of(asked.key);
    const std::string signing = "aws:amz:" + of.region + ":s3";
    curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1); // several connections, not one for all
    curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, signing.c_str());
    curl_easy_setopt(easy, CURLOPT_USERNAME, of.key_id.c_str());
    curl_easy_setopt(easy, CURLOPT_PASSWORD, of.secret.c_str());
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); // nobody waits for name servers that are late
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds_until(until));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     std::min(milliseconds_until(until), milliseconds_until(tier_clock::now() + CONNECT_TIME)));
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, problem);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, this);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
    if (!of.ca.empty()) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, of.ca.c_str());
    }
    if (!of.is_verified) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (!of.token.empty()) {
        add_header("x-amz-security-token: " + of.token);
    }
    prepare_method();
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
}

void transfers::transfer::prepare_method() {
    if (asked.what == method::head) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (asked.what == method::del) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
    } else if (asked.what == method::put || asked.what == method::create) {
        if (asked.what == method::create) {
            add_header("if-none-match: *");
        }
        curl_off_t n_bytes = 0;
        for (const auto & part : *asked.pieces) {
            n_bytes += (curl_off_t) part.size();
        }
        // No waiting for leave to send. A header without a value would leave the question out, but is signed as if it were sent.
        curl_easy_setopt(easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 1L);
        add_header("x-amz-content-sha256: UNSIGNED-PAYLOAD"); // the memory has a checksum of its own
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, n_bytes);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(easy, CURLOPT_READDATA, this);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, this);
    }
}

size_t transfers::transfer::on_read(char * buffer, size_t size, size_t n, void * self) {
    transfer & of     = *(transfer *) self;
    size_t     copied = 0;
    for (const auto & pieces = *of.asked.pieces; of.piece < pieces.size() && copied < size * n;) {
        const std::string_view left = pieces[of.piece].substr(of.of_piece);
        const size_t           now  = std::min(left.size(), size * n - copied);
        std::memcpy(buffer + copied, left.data(), now);
        copied += now;
        of.of_piece += now;
        if (of.of_piece == pieces[of.piece].size()) {
            of.piece++;
            of.of_piece = 0;
        }
    }
    return copied;
}

// From the beginning again, where a connection that was kept turns out to be closed.
int transfers::transfer::on_seek(void * self, curl_off_t offset, int origin) {
    if (offset != 0 || origin != SEEK_SET) {
        return CURL_SEEKFUNC_CANTSEEK;
    }
    ((transfer *) self)->piece = ((transfer *) self)->of_piece = 0;
    return CURL_SEEKFUNC_OK;
}

// What comes with the last line, an empty one, is known then.
size_t transfers::transfer::on_header(char * line, size_t size, size_t n, void * self) {
    transfer & of     = *(transfer *) self;
    long       status = 0;
    curl_off_t length = -1;
    if (of.has_value() && size * n <= 2 && line[0] == '\r') {
        curl_easy_getinfo(of.easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(of.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
        if (status == 200 && length >= 0) {
            of.is_too_large = (uint64_t) length > of.max_value_bytes;
            if (of.is_too_large) {
                return 0;
            }
            of.make_room((uint64_t) length);
        }
    }
    return size * n;
}

// Without exceptions, as libcurl is C: no room is a failed write.
void transfers::transfer::make_room(uint64_t n_bytes) {
    std::shared_ptr<char[]> larger(new (std::nothrow) char[std::max<uint64_t>(n_bytes, 1)]);
    if (larger && received > 0) {
        std::memcpy(larger.get(), value.get(), received);
    }
    room  = larger ? n_bytes : 0;
    value = std::move(larger);
}

size_t transfers::transfer::on_body(char * bytes, size_t size, size_t n, void * self) {
    return ((transfer *) self)->take({bytes, size * n});
}

size_t transfers::transfer::take(std::string_view bytes) {
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (!has_value() || status != 200) {
        error.append(bytes.substr(0, MAX_ERROR_BYTES - std::min(error.size(), MAX_ERROR_BYTES)));
        return bytes.size();
    }
    if (received + bytes.size() > max_value_bytes) {
        is_too_large = true;
        return 0;
    }
    if (received + bytes.size() > room) { // a length was not told
        make_room(std::min(max_value_bytes, std::max<uint64_t>(received + bytes.size(), room * 2)));
        if (!value) {
            return 0;
        }
    }
    std::memcpy(value.get() + received, bytes.data(), bytes.size());
    received += bytes.size();
    return bytes.size();
}

response transfers::transfer::result(const std::string & address, CURLcode code, tier_deadline until) {
    if (is_too_large) {
        throw tier_error(tier_failure::broken,
                         address + ": a value has more than " + std::to_string(max_value_bytes) + " bytes");
    }
    if (code != CURLE_OK) {
        const std::string text = address + ": " + (*problem ? problem : curl_easy_strerror(code));
        if (code == CURLE_WRITE_ERROR || code == CURLE_OUT_OF_MEMORY) {
            throw std::bad_alloc();
        }
        // libcurl counts whole milliseconds, and may be a little early
        const auto by = code == CURLE_OPERATION_TIMEDOUT ? until - std::chrono::milliseconds(20) : until;
        if (tier_clock::now() >= by) {
            throw tier_error(tier_failure::late, address + ": it did not answer in time");
        }
        if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE) {
            throw tier_error(tier_failure::denied, text + " (name the file of its authority by ?ca=)");
        }
        const bool is_broken = code == CURLE_WEIRD_SERVER_REPLY || code == CURLE_UNSUPPORTED_PROTOCOL;
        throw tier_error(is_broken ? tier_failure::broken : tier_failure::unreachable, text);
    }
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    response got;
    if (status >= 200 && status < 300) {
        got.is_there = true;
        if (has_value()) {
            if (!value) {
                make_room(0);
            }
            got.value.bytes = {value.get(), received};
            got.value.owner = std::move(value);
        }
        return got;
    }
    constexpr long PRECONDITION_FAILED = 412, CONFLICT = 409; // the latter: another is just being written
    got.is_taken = asked.what == method::create && (status == PRECONDITION_FAILED || status == CONFLICT);
    if (!got.is_taken && !is_missing(status, error)) {
        throw_failure(address, status, error);
    }
    return got;
}

// The transfers of one run(), which end with it.
struct transfers::running {
    CURLM * const                                     multi;
    std::vector<std::unique_ptr<transfers::transfer>> under_way;
    std::vector<std::optional<CURLcode>>              ended;

    ~running() {
        for (size_t i = 0; i < under_way.size(); i++) {
            end(i);
        }
    }

    void end(size_t i) {
        if (under_way[i]) {
            const sigpipe_guard guard; // it may say goodbye over TLS
            curl_multi_remove_handle(multi, under_way[i]->easy);
            under_way[i] = nullptr;
        }
    }

    void perform() {
        const sigpipe_guard guard;
        int                 n_running = 0;
        curl_multi_perform(multi, &n_running);
        int n_left = 0;
        while (const CURLMsg * message = curl_multi_info_read(multi, &n_left)) {
            for (size_t i = 0; message->msg == CURLMSG_DONE && i < under_way.size(); i++) {
                if (under_way[i] && under_way[i]->easy == message->easy_handle) {
                    ended[i] = message->data.result;
                }
            }
        }
    }
};

transfers::transfers(const account & of, const std::string & address, uint64_t max_value_bytes)
    : of(of), address(address), max_value_bytes(max_value_bytes), multi(curl_multi_init()) {
    if (!multi) {
        throw std::bad_alloc();
    }
}

transfers::~transfers() {
    const sigpipe_guard guard;
    curl_multi_cleanup((CURLM *) multi);
}

void transfers::run(const std::vector<request> & requests, size_t n_at_once, tier_deadline until,
                    const std::function<bool(size_t, response)> & done) {
    running all{(CURLM *) multi, {}, {}};
    all.ended.resize(requests.size());
    for (size_t next = 0; next < requests.size();) {
        while (all.under_way.size() < requests.size() && all.under_way.size() < next + n_at_once) {
            all.under_way.push_back(std::make_unique<transfer>(*this, requests[all.under_way.size()], until));
            curl_multi_add_handle(all.multi, all.under_way.back()->easy);
        }
        all.perform();
        while (next < requests.size() && all.ended[next]) {
            response got = all.under_way[next]->result(address, *all.ended[next], until);
            all.end(next);
            if (!done(next++, std::move(got))) {
                return;
            }
        }
        if (next == requests.size()) {
            return;
        }
        if (next < all.under_way.size() && !all.ended[next]) {
            if (tier_clock::now() >= until) {
                throw tier_error(tier_failure::late, address + ": it did not answer in time");
            }
            curl_multi_poll(all.multi, nullptr, 0, (int) milliseconds_until(until), nullptr);
        }
    }
}

} // namespace atlas::s3
