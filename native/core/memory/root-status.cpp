#include "atlas-root-status.hpp"

#include "atlas-log.hpp"

#include <chrono>

namespace atlas {

file_hashing & root_status::hash_files(const std::vector<std::string> & paths) {
    if (!has_hashed(paths)) {
        auto fresh = std::make_unique<file_hashing>(paths, path.empty() ? "" : path + "/model-hashes");
        const std::lock_guard<std::mutex> held(mutex);
        files.swap(fresh); // the old one is destroyed after the lock is released, as it waits for its thread's action
    }
    return *files;
}

bool root_status::has_hashed(const std::vector<std::string> & paths) const { return files && files->is_of(paths); }

void root_status::set(const std::string & root, const std::string & problem) {
    {
        const std::lock_guard<std::mutex> held(mutex);
        told.is_settled = true;
        told.is_trying  = false;
        told.root       = root;
        told.problem    = problem;
    }
    if (!problem.empty()) {
        logf(LogLevel::WARN, "Memory of this model's state is off: %s", problem.c_str());
        give_up();
    } else if (root.empty()) {
        log(LogLevel::INFO, now().why_not_on_disk());
    } else {
        logf(LogLevel::INFO, "Memory is kept in %s (root %.12s)", path.empty() ? "RAM" : path.c_str(), root.c_str());
    }
    changed.notify_all();
}

void root_status::set_trying() {
    {
        const std::lock_guard<std::mutex> held(mutex);
        told.is_settled = true;
        told.is_trying  = true;
    }
    log(LogLevel::INFO, now().why_not_on_disk());
}

void root_status::set_proof(const std::string & text) {
    const std::lock_guard<std::mutex> held(mutex);
    told.proof = text;
}

void root_status::set_others(const std::string & text) {
    const std::lock_guard<std::mutex> held(mutex);
    told.others = text;
}

void root_status::give_up() {
    if (files) {
        files->give_up();
    }
    changed.notify_all();
}

root_status::facts root_status::look() const {
    facts found = told;
    if (found.is_settled && found.root.empty() && found.problem.empty() && !found.is_trying) {
        found.hashing = files->progress();
    }
    return found;
}

root_status::facts root_status::now() const {
    const std::lock_guard<std::mutex> held(mutex);
    return look();
}

root_status::facts root_status::wait(double timeout_s) const {
    std::unique_lock<std::mutex> held(mutex);
    changed.wait_for(held, std::chrono::duration<double>(timeout_s), [this] {
        const auto found = look();
        return !found.is_trying && (!found.hashing || !found.hashing->problem.empty());
    });
    return look();
}

std::string root_status::facts::why_not_on_disk() const {
    if (is_trying) {
        return "Conversations are kept in RAM only while it is tried whether state of another build or device fits";
    }
    if (!hashing) {
        return "";
    }
    if (!hashing->problem.empty()) {
        return "Conversations are kept in RAM only until the server is restarted, as the model has no hash: " +
               hashing->problem;
    }
    return "Conversations are kept in RAM only until the model's files are hashed: " + std::to_string(hashing->bytes) +
           " of " + std::to_string(hashing->total) + " bytes are";
}

} // namespace atlas
