// The kernels as a shared library for the tests: `launch` stands in for the driver's launch.
#include "shim.h"
// Found by -I.
#include "kernels.cu"

// Runs all thread blocks of one kernel, the last one first where `order` is odd. False where there is no such kernel.
extern "C" bool launch(const char *kernel, u64 blocks, unsigned order, const u64 *arguments) {
    shim::order = order;
    for (auto &batches : shim::batches) batches.clear();
    const u64 *a = arguments;
    for (u64 step = 0; step < blocks; step++) {
        shim::block_index = (unsigned)(order % 2 ? blocks - 1 - step : step);
        if (!std::strcmp(kernel, "blake3_groups")) {
            blake3_groups(a[0], a[1], a[2]);
        } else if (!std::strcmp(kernel, "blake3_groups_tagged")) {
            blake3_groups_tagged(a[0], a[1], a[2], a[3], a[4]);
        } else if (!std::strcmp(kernel, "blake3_parents")) {
            blake3_parents(a[0], a[1], a[2]);
        } else if (!std::strcmp(kernel, "tag_groups")) {
            tag_groups(a[0], a[1], a[2], a[3], a[4]);
        } else {
            return false;
        }
    }
    return true;
}
