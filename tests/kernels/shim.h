// Stands in for the GPU: g++ compiles digest/kernels.cu behind this header (`g++ -include shim.h -x c++ kernels.cu`).
//
// What a phase is to the device (all threads of a block at once, between two barriers) is a loop here, in an order
// that the caller picks: kernels that depend on it, and so race on a GPU, differ between orders. Shared memory and
// what is private to a thread begin as rubbish. Copies behind a thread's back happen as late as they may.
#include <cstdint>
#include <cstring>
#include <vector>

#define __constant__
#define DEVICE static inline
#define KERNEL(threads, blocks_per_multiprocessor) static void
#define SHARED_ARRAY(type, name, count) \
    alignas(16) type name[count];       \
    std::memset((void *)name, 0xA5, sizeof name)
#define PRIVATE(type, name, threads) \
    type name[threads];              \
    std::memset((void *)name, 0x5A, sizeof name)
#define OWN(name, thread) name[thread]
#define FOR_EACH_THREAD(thread, threads)                                                                   \
    for (unsigned step_##thread = 0, thread; step_##thread < (threads) && begin_thread(thread = shim::place(step_##thread, threads)); \
         step_##thread++)
#define BLOCK_BARRIER() ((void)0)
#define WARP_BARRIER() ((void)0)
#define BLOCK_INDEX() shim::block_index

struct uint4 {
    unsigned x, y, z, w;
};

namespace shim {

struct Copy {
    uint4 *target;
    const unsigned char *source;
    unsigned count;
};
const unsigned THREADS_MAX = 1024;
static thread_local unsigned block_index, order, thread;
static thread_local std::vector<std::vector<Copy>> batches[THREADS_MAX];

// 0: ascending, 1: descending, else scattered; any odd factor is a permutation of a power of two.
static inline unsigned place(unsigned step, unsigned threads) {
    const unsigned scattered = (step * 37 + order) % threads;
    return order == 0 ? step : order == 1 ? threads - 1 - step : scattered;
}

static inline void do_oldest_batch() {
    for (const Copy &copy : batches[thread].front()) {
        std::memset(copy.target, 0, sizeof *copy.target);
        std::memcpy(copy.target, copy.source, copy.count);
    }
    batches[thread].erase(batches[thread].begin());
}

}  // namespace shim

static inline bool begin_thread(unsigned thread) {
    shim::thread = thread;
    return true;
}

static inline void copy_later(uint4 *target, const unsigned char *source, unsigned count) {
    auto &batches = shim::batches[shim::thread];
    if (batches.empty()) batches.emplace_back();
    batches.back().push_back({target, source, count});
}

static inline void copy_rows_later(uint4 *target, const unsigned char *source) {
    for (unsigned step = 0; step < 4; step++) copy_later(target + 32 * step, source + 8192 * step, 16);
}

// The last batch is the open one.
static inline void end_batch() {
    auto &batches = shim::batches[shim::thread];
    if (batches.empty()) batches.emplace_back();
    batches.emplace_back();
}

static inline void wait_for_all_but_newest_batch() {
    while (shim::batches[shim::thread].size() > 2) shim::do_oldest_batch();
}

static inline uint4 read_once(const unsigned char *source, bool is_wanted) {
    uint4 piece = {0, 0, 0, 0};
    if (is_wanted) std::memcpy(&piece, source, sizeof piece);
    return piece;
}

static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((std::uint64_t)high << 32 | low) >> (shift & 31));
}

// Byte i of the result is the byte that nibble i of the selector names, of the eight of high:low.
static inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const std::uint64_t bytes = (std::uint64_t)high << 32 | low;
    unsigned result = 0;
    for (unsigned byte = 0; byte < 4; byte++) {
        result |= (unsigned)(bytes >> 8 * (selector >> 4 * byte & 7) & 0xFF) << 8 * byte;
    }
    return result;
}
