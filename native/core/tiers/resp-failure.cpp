#include "resp-failure.hpp"

#include <algorithm>

namespace atlas::resp {

namespace {

constexpr size_t MAX_SHOWN = 200;

struct meaning {
    std::string_view code; // the first word of the reply
    tier_failure     failure;
    const char *     advice;
};

constexpr meaning MEANINGS[] = {
    {"NOAUTH", tier_failure::denied, "it wants a password: put it into the URL, as valkey://USER:PASSWORD@HOST"},
    {"WRONGPASS", tier_failure::denied, "the password or the user in the URL is wrong"},
    {"NOPERM", tier_failure::denied,
     "grant the user of the URL, on keys atlas:*, AUTH, CLIENT SETNAME, SELECT, PING, EXISTS, GET, SET, EXPIRE, DEL, "
     "ZADD, ZREM, ZRANGE, and of a cluster CLUSTER SLOTS"},
    {"DENIED", tier_failure::denied, "it runs in protected mode: give it a password"},
    {"OOM", tier_failure::full, "it is full: raise its maxmemory, or set its maxmemory-policy to allkeys-lru"},
    {"MISCONF", tier_failure::full, "it takes no writes as it cannot save: free its disk, or set its save to \"\""},
    {"LOADING", tier_failure::unreachable, "it still reads its data set"},
    {"MASTERDOWN", tier_failure::unreachable, "it is a replica that lost its primary"},
    {"CLUSTERDOWN", tier_failure::unreachable, "its cluster does not serve all keys"},
    {"TRYAGAIN", tier_failure::unreachable, "its cluster moves these keys to another server"},
    {"ASK", tier_failure::unreachable, "its cluster moves these keys to another server"},
    {"BUSY", tier_failure::unreachable, "it is busy with a script"},
    {"READONLY", tier_failure::denied, "it is a replica, which takes no writes: name the primary"},
    {"MOVED", tier_failure::broken, "it is part of a cluster: add ?cluster=yes to the URL"},
    {"WRONGTYPE", tier_failure::broken, "others keep values of another kind under keys of ours: use another database"},
};

} // namespace

std::string for_log(std::string_view text, const std::string & password) {
    std::string shown(text.substr(0, text.find_first_of("\r\n")));
    if (!password.empty()) {
        for (size_t at = 0; (at = shown.find(password, at)) != std::string::npos; at += 3) {
            shown.replace(at, password.size(), "...");
        }
    }
    if (shown.size() > MAX_SHOWN) {
        shown = shown.substr(0, MAX_SHOWN) + "...";
    }
    std::replace_if(shown.begin(), shown.end(), [](unsigned char c) { return c < 0x20 || c > 0x7e; }, '?');
    return shown;
}

void throw_failure(const std::string & address, std::string_view reply, const std::string & password) {
    const std::string      said = address + ": " + for_log(reply, password);
    const std::string_view code = reply.substr(0, reply.find(' '));
    for (const auto & known : MEANINGS) {
        if (code != known.code) {
            continue;
        }
        const std::string text = said + " (" + known.advice + ")";
        if (code == "MOVED") {
            throw moved_error(known.failure, text);
        }
        throw tier_error(known.failure, text);
    }
    if (reply.find("max number of clients") != std::string_view::npos) {
        throw tier_error(tier_failure::unreachable, said + " (raise its maxclients)");
    }
    throw tier_error(tier_failure::broken, said);
}

} // namespace atlas::resp
