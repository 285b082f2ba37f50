#include "atlas-tenant.hpp"
#include "cases.hpp"

#include <string>

CASE(keys_are_the_same_or_not) {
    const std::string key = "key-of-ada";
    CHECK(atlas::is_same_key(key, key));
    for (const std::string & other : {std::string(), key.substr(1), key + key, key + "a", std::string("key-of-adb"),
                                      std::string("Key-of-ada"), key + std::string(1, '\0')}) {
        CHECK(!atlas::is_same_key(key, other));
        CHECK(!atlas::is_same_key(other, key));
    }
    CHECK(atlas::is_same_key("", ""));
}
