#include "atlas-conversations.hpp"
#include "cases.hpp"

#include <string>
#include <vector>

using atlas::conversation;
using atlas::conversation_queue;

static std::string text_of(const std::vector<conversation> & taken) {
    std::string text;
    for (const auto & each : taken) {
        text += each.session + each.messages.substr(0, 1) + " ";
    }
    return text;
}

CASE(conversations_of_one_session_are_taken_alone) {
    conversation_queue queue;
    int                number = 0;
    for (const char * name : {"a", "b", "a", "c", "a"}) {
        queue.push({name, std::to_string(number++)});
    }
    CHECK(queue.take_of("none").empty());
    CHECK(text_of(queue.take_of("a")) == "a0 a2 a4 ");
    CHECK(queue.take_of("a").empty());
    CHECK(text_of(queue.take(9)) == "b1 c3 ");
}

CASE(conversations_are_taken_so_many_at_a_time) {
    conversation_queue queue;
    for (int i = 0; i < 5; i++) {
        queue.push({"small", std::to_string(i)});
    }
    CHECK(text_of(queue.take(3)) == "small0 small1 small2 ");
    queue.push({"large", std::string(3 << 20, 'x')});
    queue.push({"large", std::string(3 << 20, 'y')});
    queue.push({"large", std::string(3 << 20, 'z')});
    CHECK(text_of(queue.take(9)) == "small3 small4 largex largey ");
    CHECK(text_of(queue.take(9)) == "largez ");
}

CASE(conversations_are_bounded_and_what_is_taken_makes_room) {
    conversation_queue queue;
    for (int i = 0; i < 63; i++) {
        queue.push({i % 2 == 0 ? "even" : "odd", std::string(1 << 20, 'x')});
    }
    CHECK(queue.take_of("even").size() == 32);
    for (int i = 0; i < 33; i++) {
        queue.push({"new", std::string(1 << 20, 'x')});
    }
    CHECK(queue.dropped() == 0);
    queue.push({"last", "x"});
    CHECK(queue.dropped() == 1);
    CHECK(queue.take_of("odd").size() == 30);
}
