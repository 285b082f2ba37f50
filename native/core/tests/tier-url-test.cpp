#include "tier-url.hpp"

#include "atlas-make-tier.hpp"
#include "cases.hpp"
#include "key-slot.hpp"
#include "resp-failure.hpp"

#include <stdexcept>

using atlas::parse_tier_url;

static std::string problem_of(const std::string & url) {
    try {
        atlas::make_tier(url);
    } catch (const std::invalid_argument & error) {
        return error.what();
    }
    return "";
}

// Refused, with these words, and without what may be a password.
static void check_refused(const std::string & url, const std::string & words) {
    const std::string problem = problem_of(url);
    if (problem.find(words) == std::string::npos || problem.find("s3cret") != std::string::npos) {
        std::fprintf(stderr, "%s: %s\n", url.c_str(), problem.c_str());
    }
    CHECK(problem.find(words) != std::string::npos);
    CHECK(problem.find("s3cret") == std::string::npos);
    CHECK(problem.find("://") != std::string::npos); // the right form
}

CASE(tier_url_of_a_server) {
    const auto url = parse_tier_url("valkey://ada:a%2Fb%40c%3A@store.example:7000/3?connections=2");
    CHECK(url.scheme == "valkey" && url.user == "ada" && url.password == "a/b@c:" && url.database() == 3);
    CHECK(url.hosts.size() == 1 && url.hosts[0].name == "store.example" && url.hosts[0].port == 7000);
    CHECK(url.number("connections", 4, 16) == 2 && !url.flag("cluster", false));
    CHECK(url.address() == "valkey://store.example:7000/3");
}

CASE(tier_url_has_defaults) {
    const auto url = parse_tier_url("REDIS://store");
    CHECK(url.scheme == "valkey" && url.user.empty() && url.password.empty() && url.database() == 0);
    CHECK(url.hosts[0].port == 6379 && url.path.empty() && url.number("connections", 4, 16) == 4);
    CHECK(parse_tier_url("rediss://store/").scheme == "valkeys");
    CHECK(parse_tier_url("valkey://:pass@store").password == "pass");
    CHECK(parse_tier_url("valkey://u:p@ss:word@store").password == "p@ss:word"); // people do
}

CASE(tier_url_of_several_hosts) {
    const auto url = parse_tier_url("valkey://a,b:7001,[::1]:7002,[fe80::1]");
    CHECK(url.hosts.size() == 4 && url.hosts[2].name == "::1" && url.hosts[2].port == 7002);
    CHECK(url.address() == "valkey://a:6379,b:7001,[::1]:7002,[fe80::1]:6379");
}

CASE(tier_url_of_others) {
    CHECK(parse_tier_url("file:///mnt/kv%20cache").path == "/mnt/kv cache");
    const auto url = parse_tier_url("s3://my.bucket/a/b?endpoint=http://h:9000&region=eu-1");
    CHECK(url.bucket == "my.bucket" && url.path == "/a/b" && url.text("endpoint") == "http://h:9000");
    CHECK(url.address() == "s3://my.bucket/a/b");
}

CASE(tier_url_names_the_fault) {
    check_refused("", "begins with valkey://");
    check_refused("store:6379", "begins with valkey://");
    check_refused("http://store", "begins with valkey://");
    check_refused("valkey:///0", "a host is missing");
    check_refused("valkey://a,,b", "a host is missing");
    check_refused("valkey://u:s3cret@", "a host is missing");
    check_refused("valkey://store:0", "no port from 1 to 65535");
    check_refused("valkey://store:65536", "no port from 1 to 65535");
    check_refused("valkey://ada:s3cret", "no port from 1 to 65535");
    check_refused("valkey://::1:6379", "in brackets");
    check_refused("valkey://[::1", "in brackets");
    check_refused("valkey://u:s3cret/x@store", "percent-encoded");
    check_refused("valkey://u:s@s3cret/x@store", "percent-encoded");
    check_refused("valkey://u:s3cret?x@store", "percent-encoded");
    check_refused("valkey://u:s3cret#x@store", "written %23");
    check_refused("valkey://u:s3cret%@store", "hexadecimal");
    check_refused("valkey://u:s3cret%4@store", "hexadecimal");
    check_refused("valkey://u:s3cret%00@store", "%00");
    check_refused("valkey://s3cret@store", "a user without a password");
    check_refused("valkey://store/one", "no number of a database");
    check_refused("valkey://store/-1", "no number of a database");
    check_refused("valkey://store?connections=0", "'connections' is a number from 1 to 16");
    check_refused("valkey://store?connections=4x", "'connections' is a number from 1 to 16");
    check_refused("valkey://store?connections=4&connections=4", "given twice");
    check_refused("valkey://store?cluster=maybe", "'cluster' is yes or no");
    check_refused("valkey://a,b?cluster=no", "those of a cluster");
    check_refused("valkey://store?password=s3cret", "there are cluster, connections");
    check_refused("valkey://store?ca=/ca.crt", "valkeys://");
    check_refused("file://mnt/kv", "there are three");
    check_refused("file:///", "the directory is missing");
    check_refused("file:///kv?ttl=1", "no option has that name");
    check_refused("s3://b", "3 to 63");
    check_refused("s3://Bucket", "3 to 63");
    check_refused("s3://s3cret:s3cret@bucket", "AWS_ACCESS_KEY_ID");
}

CASE(tier_slots_are_those_of_the_specification) {
    using atlas::resp::slot_of;
    CHECK(slot_of("123456789") == 0x31c3); // the example of the specification
    CHECK(slot_of("{user1000}.following") == slot_of("{user1000}.followers"));
    CHECK(slot_of("foo{}{bar}") != slot_of("bar")); // empty braces do not count
    CHECK(slot_of("foo{{bar}}zap") == slot_of("{bar"));
    CHECK(slot_of("foo{bar}{zap}") == slot_of("bar"));
    CHECK(slot_of(std::string("a\0b", 3)) != slot_of("a"));
}

CASE(tier_logs_what_servers_say_without_the_password) {
    using atlas::resp::for_log;
    CHECK(for_log("ERR unknown command 'AUTH', with args: 'pass' 'pass'", "pass") ==
          "ERR unknown command 'AUTH', with args: '...' '...'");
    CHECK(for_log("...", ".") == ".........");
    CHECK(for_log("a\x1b[1mb\xff\nsecond", "") == "a?[1mb?");
    CHECK(for_log(std::string(5000, 'x'), "").size() < 300);
}
