// The state of sequences, with llama.cpp's library and a small model that ATLAS_TEST_MODEL names.
#include "atlas-cell-range.hpp"
#include "atlas-fingerprint.hpp"
#include "atlas-model-memory.hpp"
#include "atlas-sequence-state.hpp"
#include "atlas-state-proof.hpp"
#include "cases.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

using atlas::memory_match;
using atlas::model_memory;
using atlas::sequence_record;
using atlas::sequence_state;

namespace {

using tokens = std::vector<llama_token>;

constexpr size_t BLOCK = 16;

template <typename T, void (*FREE)(T *)> struct freed_by {
    void operator()(T * what) const { FREE(what); }
};
using model_ptr   = std::unique_ptr<llama_model, freed_by<llama_model, llama_model_free>>;
using context_ptr = std::unique_ptr<llama_context, freed_by<llama_context, llama_free>>;

model_ptr load() {
    const char * path = std::getenv("ATLAS_TEST_MODEL");
    CHECK(path != nullptr);
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    model_ptr model(llama_model_load_from_file(path, llama_model_default_params()));
    CHECK(model != nullptr);
    return model;
}

llama_context_params four_sequences(bool is_unified) {
    auto params            = llama_context_default_params();
    params.n_ctx           = 1024;
    params.n_seq_max       = 4;
    params.kv_unified      = is_unified;
    params.n_threads       = 1;
    params.n_threads_batch = 1;
    return params;
}

context_ptr make(const model_ptr & model, bool is_unified = false) {
    context_ptr made(llama_init_from_model(model.get(), four_sequences(is_unified)));
    CHECK(made != nullptr);
    return made;
}

tokens some_tokens(size_t n, int first) {
    tokens made;
    for (size_t i = 0; i < n; i++) {
        made.push_back(10 + (llama_token) (first + i * 7) % 200);
    }
    return made;
}

// The logits behind the last of the tokens, which come behind what the sequence holds.
std::vector<float> decode(const context_ptr & ctx, llama_seq_id id, const tokens & what) {
    const llama_pos begin = llama_memory_seq_pos_max(llama_get_memory(ctx.get()), id) + 1;
    llama_batch     batch = llama_batch_init((int32_t) what.size(), 0, 1);
    for (size_t i = 0; i < what.size(); i++) {
        batch.token[i]     = what[i];
        batch.pos[i]       = begin + (llama_pos) i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = id;
        batch.logits[i]    = i + 1 == what.size();
    }
    batch.n_tokens = (int32_t) what.size();
    CHECK(llama_decode(ctx.get(), batch) == 0);
    llama_batch_free(batch);
    const float * logits = llama_get_logits_ith(ctx.get(), -1);
    return {logits, logits + llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx.get())))};
}

double distance(const std::vector<float> & one, const std::vector<float> & other) {
    double largest = 0;
    for (size_t i = 0; i < one.size(); i++) {
        largest = std::max(largest, (double) std::abs(one[i] - other[i]));
    }
    return largest;
}

// All that a server has for one model.
struct kept {
    explicit kept(const context_ptr & ctx, const std::string & dir, const std::string & build = "a build")
        : status(dir), store(options(dir)), memory(store, status, probe(ctx)) {
        const std::vector<llama_model_kv_override> none;
        memory.settle_root({std::getenv("ATLAS_TEST_MODEL"), build, four_sequences(false), none, {}}, ctx.get(), {""},
                           {const_cast<llama_model *>(llama_get_model(ctx.get())), four_sequences(false), 256});
        CHECK(memory.root()->is_known);
    }

    static atlas::memory_options options(const std::string & dir) {
        atlas::memory_options made;
        made.path         = dir + "/memory";
        made.ram_bytes    = 64 << 20;
        made.disk_bytes   = 64 << 20;
        made.block_tokens = BLOCK;
        made.sync_each    = false;
        return made;
    }

    static atlas::probed_state probe(const context_ptr & ctx) {
        const auto probed = atlas::probe_state(ctx.get(), false);
        CHECK(probed && probed->token_bytes > 0 && probed->layout.parts == atlas::state_class::ranges);
        return *probed;
    }

    memory_match find(const tokens & what) {
        return store.find(memory.root()->of(""), what.data(), what.size(), memory.layout().needs_checkpoint());
    }

    atlas::root_status  status;
    atlas::memory_store store;
    model_memory        memory;
};

void capture(kept & in, const context_ptr & ctx, llama_seq_id id, sequence_record & record, const tokens & what,
             bool is_whole = true) {
    static const std::string NOBODY;
    atlas::capture_limits    limits;
    limits.is_whole = is_whole;
    sequence_state(in.memory, ctx.get(), id, record).capture({what.data(), what.size(), NOBODY, {}}, limits);
}

} // namespace

CASE(what_was_captured_goes_on_in_another_context) {
    const auto model = load();
    const auto here = make(model), there = make(model), otherwise = make(model);
    kept       memory(here, dir);

    const tokens    said = some_tokens(5 * BLOCK + 3, 1), next = some_tokens(1, 77);
    sequence_record record;
    decode(here, 1, said);
    capture(memory, here, 1, record, said);
    CHECK(is_kept(memory.memory, record, said.size()));

    const auto match = memory.find(said);
    CHECK(match.n_tokens == said.size() && match.blocks.size() == 6);
    sequence_record fresh;
    CHECK(sequence_state(memory.memory, there.get(), 2, fresh).restore(match, (llama_pos) match.n_tokens - 1, false));
    CHECK(fresh.restored_at == (int64_t) said.size());

    const auto expected = decode(here, 1, next);
    CHECK(distance(decode(there, 2, next), expected) < 1e-4);

    tokens changed = said;
    changed[0] += 1;
    decode(otherwise, 1, changed);
    CHECK(distance(decode(otherwise, 1, next), expected) > 1e-2); // or the comparison would say nothing
}

CASE(a_shorter_match_cuts_the_sequence) {
    const auto model = load();
    const auto here = make(model), there = make(model);
    kept       memory(here, dir);

    const tokens    said = some_tokens(3 * BLOCK, 1);
    sequence_record record, fresh;
    decode(here, 0, said);
    capture(memory, here, 0, record, said);
    const tokens begin(said.begin(), said.begin() + BLOCK + 5);
    const auto   match = memory.find(begin);
    CHECK(match.n_tokens == begin.size() && match.blocks.size() == 2); // of the second a part
    CHECK(sequence_state(memory.memory, there.get(), 0, fresh).restore(match, (llama_pos) match.n_tokens - 1, false));
    CHECK(llama_memory_seq_pos_max(llama_get_memory(there.get()), 0) == (llama_pos) begin.size() - 1);
}

CASE(while_a_sequence_works_only_whole_blocks_are_captured) {
    const auto      model = load();
    const auto      ctx   = make(model);
    kept            memory(ctx, dir);
    const tokens    said = some_tokens(2 * BLOCK + 7, 1);
    sequence_record record;
    decode(ctx, 0, said);
    capture(memory, ctx, 0, record, said, false);
    CHECK(record.n_written_back == 2 * BLOCK && record.n_tail == 0);
    CHECK(!is_kept(memory.memory, record, said.size()));
    capture(memory, ctx, 0, record, said, true);
    CHECK(record.n_written_back == 2 * BLOCK && record.n_tail == 7);
    CHECK(is_kept(memory.memory, record, said.size()));
}

CASE(of_what_was_captured_no_tokens_are_needed) {
    static const std::string NOBODY;
    const auto               model = load();
    const auto               ctx   = make(model);
    kept                     memory(ctx, dir);
    const tokens             said = some_tokens(4 * BLOCK + 3, 1), rest(said.begin() + BLOCK, said.end());
    sequence_record          record, other;
    sequence_state           sequence(memory.memory, ctx.get(), 0, record);
    decode(ctx, 0, {said.begin(), said.begin() + BLOCK});
    capture(memory, ctx, 0, record, {said.begin(), said.begin() + BLOCK}, false);
    CHECK(sequence.begin_of_rest() == BLOCK);

    decode(ctx, 0, rest);
    const atlas::sequence_content of = {rest.data(), said.size(), NOBODY, {}, {}, BLOCK};
    sequence_state(memory.memory, ctx.get(), 0, other)
        .capture(of, {true}); // as if the root had been replaced meanwhile
    CHECK(other.n_written_back == 0 && other.n_tail == 0);
    sequence.capture(of, {true});
    CHECK(is_kept(memory.memory, record, said.size()));
    CHECK(memory.find(said).n_tokens == said.size());
}

CASE(what_has_no_cells_is_not_captured) {
    const auto   model = load();
    const auto   ctx   = make(model);
    kept         memory(ctx, dir);
    const tokens said = some_tokens(3 * BLOCK, 1);

    sequence_record short_of_cells;
    decode(ctx, 0, {said.begin(), said.end() - 1});
    capture(memory, ctx, 0, short_of_cells, said);
    CHECK(short_of_cells.n_written_back == 0);

    sequence_record gap;
    decode(ctx, 1, said);
    CHECK(llama_memory_seq_rm(llama_get_memory(ctx.get()), 1, BLOCK + 2, BLOCK + 5));
    capture(memory, ctx, 1, gap, said);
    CHECK(gap.n_written_back == BLOCK && gap.is_inexact);
    CHECK(memory.find(said).n_tokens == BLOCK);
}

CASE(two_memories_in_one_process_do_not_mix) {
    const auto      model = load();
    const auto      ctx   = make(model);
    kept            one(ctx, dir + "/one"), other(ctx, dir + "/other");
    const tokens    said = some_tokens(2 * BLOCK, 1);
    sequence_record record;
    decode(ctx, 0, said);
    capture(one, ctx, 0, record, said);
    CHECK(one.memory.root()->text == other.memory.root()->text);
    CHECK(one.find(said).n_tokens == said.size());
    CHECK(other.find(said).n_tokens == 0);
    one.memory.cells.take(0, 1000);
    const auto shared = make(model, true);
    CHECK(!one.memory.cells.suffice(shared.get(), 100));
    CHECK(other.memory.cells.suffice(shared.get(), 100));
}

CASE(cells_are_reserved_where_sequences_share_them) {
    const auto               model = load();
    const auto               alone = make(model), shared = make(model, true);
    atlas::cell_reservations cells;
    CHECK(!atlas::has_shared_cells(alone.get()) && atlas::has_shared_cells(shared.get()));
    CHECK(atlas::cell_reservations::needed(shared.get(), 100, -1, 2) == 100 + 2 * 128);
    CHECK(atlas::cell_reservations::needed(shared.get(), 100, 5, 0) == 105);
    CHECK(atlas::cell_reservations::needed(shared.get(), 5000, 5, 1) == 1024);
    cells.take(3, 600);
    CHECK(cells.suffice(shared.get(), 424) && !cells.suffice(shared.get(), 425));
    CHECK(cells.suffice(alone.get(), 1024));
    decode(shared, 3, some_tokens(700, 1)); // more than it was to need
    CHECK(cells.suffice(shared.get(), 324) && !cells.suffice(shared.get(), 325));
    CHECK(cells.has_room(shared.get(), 0, 324) && !cells.has_room(shared.get(), 0, 325));
    CHECK(cells.has_room(shared.get(), 3, 1024));
    cells.hold(3, 800); // tokens, of which some have one position
    CHECK(cells.suffice(shared.get(), 224) && !cells.suffice(shared.get(), 225));
    CHECK(cells.has_room(shared.get(), 0, 224) && !cells.has_room(shared.get(), 0, 225));
    cells.give_back(3);
    CHECK(!cells.has_room(shared.get(), 0, 225));
    cells.give_back(17);
    CHECK(cells.suffice(shared.get(), 1024));
}

CASE(an_image_has_one_position_and_leaves_out_some) {
    // two texts, an image of 3 by 2, a sound, an image right behind it, a text
    const std::vector<atlas::media_span> media = {{2, 8, 3, true}, {8, 12, 4, false}, {12, 14, 2, true}};

    std::vector<llama_pos> positions;
    for (size_t token = 0; token < 16; token++) {
        positions.push_back(atlas::position_of(media, token));
    }
    CHECK((positions == std::vector<llama_pos>{0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 7, 8, 9, 9, 11, 12}));
    const auto is = [&](size_t begin, size_t end, llama_pos p0, llama_pos p1, uint32_t skip) {
        const llama_cell_range range = atlas::cells_of(media, begin, end);
        return range.p0 == p0 && range.p1 == p1 && range.skip == skip && range.n == end - begin;
    };
    CHECK(is(0, 2, 0, 2, 0) && is(0, 5, 0, 3, 0) && is(5, 6, 2, 3, 3) && is(5, 10, 2, 7, 3) && is(13, 16, 9, 13, 1));
    CHECK(atlas::position_of({}, 7) == 7);
}

CASE(cells_are_taken_in_the_order_of_their_tokens) {
    struct place {
        llama_pos pos, y, x;
    };
    struct {
        std::vector<place> all;
        llama_pos          pos_get(uint32_t i) const { return all[i].pos; }
        const place &      ext_get(uint32_t i) const { return all[i]; }
    } const cells       = {{{4, 5, 4}, {4, 5, 5}, {7, 7, 7}, {1, 1, 1}, {3, 3, 3}, {4, 4, 4}, {4, 4, 5}}};
    using ranges        = std::vector<std::pair<uint32_t, uint32_t>>;
    const ranges all    = {{0, 3}, {4, 7}};
    const auto   choose = [&](uint32_t skip, uint32_t n) {
        ranges found = all;
        CHECK(atlas::choose_cells(found, cells, {3, 8, skip, n}) == n);
        return found;
    };
    CHECK(choose(0, 6) == all);
    CHECK((choose(0, 3) == ranges{{4, 7}}));
    CHECK((choose(2, 3) == ranges{{6, 7}, {0, 2}}));
    CHECK((choose(5, 1) == ranges{{2, 3}}));
    for (const auto & [skip, n] : ranges{{0, 7}, {6, 1}, {1, UINT32_MAX}, {UINT32_MAX, 2}, {UINT32_MAX, UINT32_MAX}}) {
        ranges found = all;
        try {
            atlas::choose_cells(found, cells, {3, 8, skip, n});
            CHECK(!"more than there are");
        } catch (const std::runtime_error &) {
        }
    }
}

CASE(the_fingerprint_has_what_kv_depends_on) {
    const auto                           model = load();
    const auto                           ctx   = make(model);
    std::vector<llama_model_kv_override> overrides;
    atlas::model_description             as_loaded = {"a.gguf", "b1", four_sequences(false), overrides, {}};
    const auto text   = [&] { return atlas::fingerprint_settings(as_loaded, ctx.get(), BLOCK, {}); };
    const auto before = text();

    as_loaded.context.rope_freq_base = 12345;
    CHECK(text() != before);
    as_loaded.context = four_sequences(false);
    as_loaded.vectors = {{"v.gguf", 0.5f}};
    CHECK(text() != before);
    CHECK((atlas::fingerprint_files(as_loaded) == std::vector<std::string>{"a.gguf", "v.gguf"}));
    as_loaded.vectors.clear();
    CHECK(text() == before);
    overrides.push_back({LLAMA_KV_OVERRIDE_TYPE_BOOL, "a.key", {}});
    overrides.back().val_bool = true;
    CHECK(text() != before);
    as_loaded.file = "m-00001-of-00003.gguf";
    CHECK((atlas::fingerprint_files(as_loaded) ==
           std::vector<std::string>{"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"}));
}

int main(int argc, char ** argv) { return cases::run(argc, argv); }
