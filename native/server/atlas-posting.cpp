#include "atlas-posting.h"

#include "atlas-slots.h"
#include "server-task.h"

#include <utility>

atlas_posting::atlas_posting() = default;

atlas_posting::~atlas_posting() = default;

void atlas_posting::expect(const server_http_req & req, size_t n_at_once) {
    request    = &req;
    max_posted = n_at_once;
}

void atlas_posting::begin(std::vector<server_task> & tasks) {
    if (const auto * req = std::exchange(request, nullptr)) {
        for (auto & task : tasks) {
            atlas_memory_find(task, *req);
        }
    }
    if (max_posted == 0) {
        return;
    }
    std::vector<server_task> single;
    for (auto & task : tasks) {
        auto children = std::exchange(task.child_tasks, {});
        single.push_back(std::move(task));
        for (auto & child : children) {
            child.id_parent = -1;
            child.id_slot   = -1;
            atlas_memory_find_like(child, single.back());
            single.push_back(std::move(child));
        }
    }
    tasks = std::move(single);
}

void atlas_posting::hold_back(std::vector<server_task> & tasks) {
    while (max_posted > 0 && tasks.size() > max_posted) {
        held.push_back(std::move(tasks.back()));
        tasks.pop_back();
    }
}
