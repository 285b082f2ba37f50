#include "atlas-step-cost.hpp"
#include "cases.hpp"

using atlas::step_cost;

CASE(blocks_that_take_long_are_known_from_the_second) {
    step_cost cost;
    CHECK(!cost.is_long() && !cost.is_worthless(1));
    CHECK(!cost.add(0.2, true) && !cost.is_long()); // it may be an accident
    CHECK(cost.add(0.2, true) && cost.is_long());
    for (int i = 0; i < 3; i++) {
        cost.add(0.01, true);
    }
    CHECK(!cost.is_long());
    cost.add(0.1, true);
    CHECK(!cost.add(0.5, true)); // which is said once
}

CASE(one_block_that_waited_for_something_else_is_no_long_one) {
    step_cost cost;
    cost.add(0.001, true);
    cost.add(20, true);
    CHECK(!cost.is_long() && cost.seconds() < 0.002);
}

CASE(what_is_shorter_than_a_block_says_only_that_one_takes_longer) {
    step_cost cost;
    cost.add(0.2, false);
    cost.add(0.2, false);
    cost.add(0.001, false);
    CHECK(cost.is_long());
    cost.add(1, false);
    cost.add(1, false);
    CHECK(cost.seconds() > 0.2);
}

CASE(what_is_sooner_computed_is_copied_now_and_then) {
    step_cost cost;
    cost.add(0.2, true);
    cost.add(0.2, true);
    CHECK(!cost.is_worthless(0)); // it is not known
    CHECK(!cost.is_worthless(0.15));
    int n_worthless = 0;
    for (int i = 0; i < 64; i++) {
        n_worthless += cost.is_worthless(0.05) ? 1 : 0;
    }
    CHECK(n_worthless == 56);
}
