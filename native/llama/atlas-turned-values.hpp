// State whose values (V) are stored the other way round than the cache has them: with flash attention by cells, without it by
// dimensions. A patch uses this inside libllama.
#pragma once

#include "llama-io.h"
#include "llama.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace atlas {

// Reads from another reader. Until values() is called, and unless turn() was, it adds nothing. The thread that decodes.
class turned_values : public llama_io_read_i {
  public:
    explicit turned_values(llama_io_read_i & from) : from(from) { append = from.append; }

    // The values are of n_cells cells, and stored the other way round. Returns true.
    bool turn(uint32_t n_cells_there, bool is_by_dimension_there) {
        n_cells         = n_cells_there;
        is_by_dimension = is_by_dimension_there;
        is_wanted       = true;
        return true;
    }
    // What is read from now on are the values, tensor by tensor.
    void values() { is_turning = is_wanted; }

    // Throws std::runtime_error for values of quantised types, which have no single numbers.
    void read(void * dst, size_t size) override {
        if (!is_turning) {
            from.read(dst, size);
            return;
        }
        uint64_t number = 0;
        switch (n_read++) {
            case 0:  number = type = get<int32_t>(); break;
            case 1:  number = is_by_dimension ? row_bytes_there() : element_bytes_there(); break;
            default: number = n_dimensions;
        }
        std::memcpy(dst, &number, size); // little endian, as state is
    }
    void read_tensor(ggml_tensor * tensor, size_t offset, size_t size) override {
        if (!is_turning) {
            from.read_tensor(tensor, offset, size);
            return;
        }
        if (turned.empty()) {
            load();
        }
        if (size > turned.size() - at) {
            throw std::runtime_error("there are fewer values than cells");
        }
        ggml_backend_tensor_set(tensor, turned.data() + at, offset, size);
        at += size;
        if (at == turned.size()) { // the next tensor
            turned.clear();
            at = n_read = 0;
        }
    }
    void   discard() override { from.discard(); }
    size_t n_bytes() override { return from.n_bytes(); }

  private:
    llama_io_read_i & from;

    uint32_t n_cells         = 0;
    bool     is_by_dimension = false; // there
    bool     is_wanted = false, is_turning = false;

    // Of the tensor that is read. The cache compares what read() gives with what it has before it asks for any value.
    size_t               n_read    = 0;
    int32_t              type      = 0;
    size_t               n_element = 0, n_dimensions = 0;
    std::vector<uint8_t> turned;
    size_t               at = 0;

    template <typename T> T get() {
        T value;
        from.read(&value, sizeof(value));
        return value;
    }
    size_t bytes_of_type() const {
        if (type == GGML_TYPE_F32) {
            return 4;
        }
        if (type == GGML_TYPE_F16 || type == GGML_TYPE_BF16) {
            return 2;
        }
        throw std::runtime_error("values of a quantised type cannot be turned round");
    }
    uint64_t row_bytes_there() {
        n_element    = get<uint32_t>();
        n_dimensions = get<uint32_t>();
        if (n_element != bytes_of_type()) {
            throw std::runtime_error("values have another size");
        }
        return (uint64_t) n_element * n_dimensions;
    }
    uint64_t element_bytes_there() {
        n_element    = bytes_of_type();
        n_dimensions = (size_t) (get<uint64_t>() / n_element);
        return n_element;
    }
    void load() {
        std::vector<uint8_t> there(n_cells * n_dimensions * n_element);
        from.read(there.data(), there.size());
        turned.resize(there.size());
        const size_t n_rows    = is_by_dimension ? n_dimensions : n_cells,
                     n_columns = is_by_dimension ? n_cells : n_dimensions;
        for (size_t row = 0; row < n_rows; row++) {
            for (size_t column = 0; column < n_columns; column++) {
                std::memcpy(&turned[(column * n_rows + row) * n_element],
                            &there[(row * n_columns + column) * n_element], n_element);
            }
        }
    }
};

} // namespace atlas
