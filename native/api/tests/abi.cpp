// Prints what a program has compiled into itself of the public headers: sizes, places of members in bytes, numbers of
// enumerators. tools/abi compares it with native/abi.txt.
#include "atlas-integration.hpp"
#include "atlas-memory-policy.hpp"

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>

using namespace atlas;

template <typename T> static void show_size(const char * name) {
    std::printf("%s: %zu bytes, aligned to %zu\n", name, sizeof(T), alignof(T));
}

template <typename T, typename M> static void show_member(const T & of, const char * name, const M & member) {
    std::printf("%s: at %td, %zu bytes\n", name,
                (const char *) std::addressof(member) - (const char *) std::addressof(of), sizeof(member));
}

// Of structures the members are unpacked first, so that one that is added, and not shown, does not compile.
#define SIZE(type)           show_size<type>(#type)
#define MEMBER(type, member) show_member(of, #type "::" #member, member)
#define NUMBER(value)        std::printf("%s: %d\n", #value, (int) (value))

static void show(const AtlasModelOptions & of) {
    SIZE(AtlasModelOptions);
    const auto & [arguments, model_path, memory_policy, max_contexts] = of;
    MEMBER(AtlasModelOptions, arguments);
    MEMBER(AtlasModelOptions, model_path);
    MEMBER(AtlasModelOptions, memory_policy);
    MEMBER(AtlasModelOptions, max_contexts);
}

static void show(const MemoryTouch & of) {
    SIZE(MemoryTouch);
    const auto & [key, parent, now, size, saving, kind, strategy] = of;
    MEMBER(MemoryTouch, key);
    MEMBER(MemoryTouch, parent);
    MEMBER(MemoryTouch, now);
    MEMBER(MemoryTouch, size);
    MEMBER(MemoryTouch, saving);
    MEMBER(MemoryTouch, kind);
    MEMBER(MemoryTouch, strategy);
}

static void show(const MemoryEviction & of) {
    SIZE(MemoryEviction);
    const auto & [key, priority, now] = of;
    MEMBER(MemoryEviction, key);
    MEMBER(MemoryEviction, priority);
    MEMBER(MemoryEviction, now);
}

static void show(const AtlasRequest & of) {
    SIZE(AtlasRequest);
    const auto & [method, path, query, body, headers, is_gone] = of;
    MEMBER(AtlasRequest, method);
    MEMBER(AtlasRequest, path);
    MEMBER(AtlasRequest, query);
    MEMBER(AtlasRequest, body);
    MEMBER(AtlasRequest, headers);
    MEMBER(AtlasRequest, is_gone);
}

static void show(const AtlasResponse & of) {
    SIZE(AtlasResponse);
    const auto & [status, content_type, body, headers, next] = of;
    MEMBER(AtlasResponse, status);
    MEMBER(AtlasResponse, content_type);
    MEMBER(AtlasResponse, body);
    MEMBER(AtlasResponse, headers);
    MEMBER(AtlasResponse, next);
}

static void show(const AtlasServerConfig & of) {
    SIZE(AtlasServerConfig);
#define ATLAS_SETTING(name, ...) show_member(of, "AtlasServerConfig::" #name, of.name);
#include "atlas-settings.def"
#undef ATLAS_SETTING
}

// Where a virtual function stands, by the ABI of C++ that gcc and clang have.
template <typename F> static void show_virtual(const char * name, F function) {
    std::ptrdiff_t parts[2];
    static_assert(sizeof(function) == sizeof(parts), "");
    std::memcpy(parts, &function, sizeof(parts));
    std::printf("%s: virtual function %td\n", name, parts[0] / (std::ptrdiff_t) sizeof(void *));
}

int main() {
    SIZE(AtlasServer);
    SIZE(AtlasMemoryPolicy);
    show_virtual("AtlasMemoryPolicy::evict_order", &AtlasMemoryPolicy::evict_order);
    show_virtual("AtlasMemoryPolicy::admit", &AtlasMemoryPolicy::admit);
    show(MemoryTouch());
    show(MemoryEviction());
    SIZE(json);
    show(AtlasModelOptions());
    show(AtlasRequest());
    show(AtlasResponse());
    show(AtlasServerConfig());
    NUMBER(LogLevel::DEBUG);
    NUMBER(LogLevel::INFO);
    NUMBER(LogLevel::WARN);
    NUMBER(LogLevel::ERROR);
    NUMBER(LogFormat::TEXT);
    NUMBER(LogFormat::JSON);
    NUMBER(MemoryKind::BLOCK);
    NUMBER(MemoryKind::TAIL);
    NUMBER(MemoryKind::CHECKPOINT);
    NUMBER(MemoryStrategy::LRU);
    NUMBER(MemoryStrategy::LFU);
    NUMBER(MemoryStrategy::ADAPTIVE);
}
