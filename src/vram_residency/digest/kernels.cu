// BLAKE3 over groups of 128 KiB and the keyed tag over them (spec: gpu.md, "BLAKE3 on the GPU", "The fast tag").
//
// This text is compiled twice: by NVRTC for a GPU, and by g++ for the tests, behind a header that stands in for the
// device (tests/kernels). It includes nothing. Kernels are made of phases: what stands in FOR_EACH_THREAD is run by
// every thread of a block, barriers stand between phases and never inside one, and all control flow around phases is
// the same for all threads. What a thread keeps from one phase to the next is PRIVATE; OWN is the thread's own.

typedef unsigned int u32;
typedef unsigned long long u64;

#define GROUP_BYTES 131072u
#define CHUNK_BYTES 1024u
#define BLOCK_BYTES 64u
#define PIECE_BYTES 16u
// One thread per chunk, one thread block per group.
#define GROUP_CHUNKS 128u
#define CHUNK_BLOCKS 16u
#define BLOCK_PIECES 4u
#define GROUP_PIECES (GROUP_BYTES / PIECE_BYTES)
#define VALUE_WORDS 8u
// A warp copies a block of each of its 32 chunks in steps of 8 chunks: pieces in shared memory, bytes in the group.
#define ROWS_PIECES 32u
#define ROWS_BYTES 8192u
// The tag: sums of 64 bits for each group, threads and groups of a thread block that computes it alone.
#define LANES 4u
#define TAG_THREADS 256u
#define TAG_GROUPS 4u

#ifdef __CUDACC__

#define DEVICE static __device__ __forceinline__
#define KERNEL(threads, blocks_per_multiprocessor) \
    extern "C" __global__ void __launch_bounds__(threads, blocks_per_multiprocessor)
#define SHARED_ARRAY(type, name, count) __shared__ __align__(16) type name[count]
#define PRIVATE(type, name, threads) type name
#define OWN(name, thread) name
#define FOR_EACH_THREAD(thread, threads) if (const u32 thread = threadIdx.x; true)
#define BLOCK_BARRIER() __syncthreads()
#define WARP_BARRIER() __syncwarp()
#define BLOCK_INDEX() blockIdx.x

// Copies PIECE_BYTES to shared memory behind the thread's back: `count` bytes, then zeros. Reads no more than that.
DEVICE void copy_later(uint4 *target, const unsigned char *source, u32 count) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((u32)__cvta_generic_to_shared(target)), "l"(source), "r"(count)
                 : "memory");
}

// The same of BLOCK_PIECES whole pieces, each ROWS_PIECES and ROWS_BYTES behind the one before.
DEVICE void copy_rows_later(uint4 *target, const unsigned char *source) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n\t"
                 "cp.async.cg.shared.global [%0 + 512], [%1 + 8192], 16;\n\t"
                 "cp.async.cg.shared.global [%0 + 1024], [%1 + 16384], 16;\n\t"
                 "cp.async.cg.shared.global [%0 + 1536], [%1 + 24576], 16;"
                 :
                 : "r"((u32)__cvta_generic_to_shared(target)), "l"(source)
                 : "memory");
}

// The copies since the last call are one batch.
DEVICE void end_batch() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits for this thread's batches but the newest one.
DEVICE void wait_for_all_but_newest_batch() { asm volatile("cp.async.wait_group 1;" : : : "memory"); }

// Reads what is used once, so that it displaces nothing from the first cache, where the key is. Zeros, and nothing
// read, unless `is_wanted`; no branch, so that many reads are under way at once.
DEVICE uint4 read_once(const unsigned char *source, bool is_wanted) {
    uint4 piece = {0, 0, 0, 0};
    asm("{ .reg .pred wanted; setp.ne.u32 wanted, %5, 0;\n\t"
        "@wanted ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4]; }"
        : "+r"(piece.x), "+r"(piece.y), "+r"(piece.z), "+r"(piece.w)
        : "l"(source), "r"((u32)is_wanted));
    return piece;
}

#endif

// One row of a launch's table: bytes or values that lie together, and the thread blocks that work on them.
struct Row {
    u64 source;       // address of the bytes (a multiple of 16) or of the values
    u64 size;         // how many bytes, or values
    u64 first_block;  // index of its first thread block; ascending, the first row has 0
    u64 position;     // number of chunks before it in the whole
    u64 is_root;      // 1 where it is the whole and one thread block reduces it to the digest, else 0
};

// The row that a thread block works on: the last one that begins no later.
DEVICE Row row_of(const Row *rows, u64 count, u64 block) {
    u64 low = 0;
    for (u64 high = count; high - low > 1;) {
        const u64 middle = low + (high - low) / 2;
        if (rows[middle].first_block <= block) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return rows[low];
}

// What is left of `size` from `start` on, at most `most`. Words of 32 bits where they do: they cost half.
template <typename Word>
DEVICE u32 rest(Word size, Word start, u32 most) {
    const Word left = size - start;
    return start >= size ? 0 : left < most ? (u32)left : most;
}

// ---- BLAKE3 (the section numbers are those of its paper) ----

enum Flag { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };  // table 3

// Table 1.
#define IV0 0x6A09E667u
#define IV1 0xBB67AE85u
#define IV2 0x3C6EF372u
#define IV3 0xA54FF53Au
#define IV4 0x510E527Fu
#define IV5 0x9B05688Cu
#define IV6 0x1F83D9ABu
#define IV7 0x5BE0CD19u

struct Chain {
    u32 word[VALUE_WORDS];
};

DEVICE Chain initial_chain() { return Chain{{IV0, IV1, IV2, IV3, IV4, IV5, IV6, IV7}}; }

// Sums of three words. Up to Hopper the pipe of additions, logic and shifts is the bound, and that of multiplications
// idles: a * 1 + b moves there, as long as the compiler does not know that it is a one.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
#define SUM(a, b, c) ((a) + (b) + (c))
#else
static __constant__ u32 unknown_one = 1;
#define SUM(a, b, c) (((a) * unknown_one + (b)) * unknown_one + (c))
#endif

// The quarter round G of section 2.2.
#define MIX(a, b, c, d, x, y)              \
    do {                                   \
        a = SUM(a, b, m[x]);               \
        d = __byte_perm(d ^ a, 0, 0x1032); \
        c = c + d;                         \
        b = __funnelshift_r(b ^ c, b ^ c, 12); \
        a = SUM(a, b, m[y]);               \
        d = __byte_perm(d ^ a, 0, 0x0321); \
        c = c + d;                         \
        b = __funnelshift_r(b ^ c, b ^ c, 7); \
    } while (0)

// A round: the columns, then the diagonals.
#define ROUND(i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, i12, i13, i14, i15) \
    do {                                                                           \
        MIX(v0, v4, v8, v12, i0, i1);                                              \
        MIX(v1, v5, v9, v13, i2, i3);                                              \
        MIX(v2, v6, v10, v14, i4, i5);                                             \
        MIX(v3, v7, v11, v15, i6, i7);                                             \
        MIX(v0, v5, v10, v15, i8, i9);                                             \
        MIX(v1, v6, v11, v12, i10, i11);                                           \
        MIX(v2, v7, v8, v13, i12, i13);                                            \
        MIX(v3, v4, v9, v14, i14, i15);                                            \
    } while (0)

// Section 2.2: the first eight words of the output. `m` are 16 words.
DEVICE Chain compress(const Chain &chain, const u32 *m, u64 counter, u32 length, u32 flags) {
    u32 v0 = chain.word[0], v1 = chain.word[1], v2 = chain.word[2], v3 = chain.word[3];
    u32 v4 = chain.word[4], v5 = chain.word[5], v6 = chain.word[6], v7 = chain.word[7];
    u32 v8 = IV0, v9 = IV1, v10 = IV2, v11 = IV3;
    u32 v12 = (u32)counter, v13 = (u32)(counter >> 32), v14 = length, v15 = flags;
    // Table 2 applied again and again: constant indices keep the words in registers.
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8);
    ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1);
    ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6);
    ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4);
    ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7);
    ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13);
    return Chain{{v0 ^ v8, v1 ^ v9, v2 ^ v10, v3 ^ v11, v4 ^ v12, v5 ^ v13, v6 ^ v14, v7 ^ v15}};
}

// Nodes lie in shared memory word by word, so that the threads of a warp meet in no bank.
DEVICE void put_node(u32 *nodes, u32 index, const Chain &chain) {
#pragma unroll
    for (u32 word = 0; word < VALUE_WORDS; word++) {
        nodes[word * GROUP_CHUNKS + index] = chain.word[word];
    }
}

DEVICE void take_node(const u32 *nodes, u32 index, u32 *words) {
#pragma unroll
    for (u32 word = 0; word < VALUE_WORDS; word++) {
        words[word] = nodes[word * GROUP_CHUNKS + index];
    }
}

// Section 2.1: pairs of neighbours become their parents until one node is left; an odd one moves up as it is, so
// that every left subtree is as large as can be. The node that is left goes to `value`.
DEVICE void reduce_nodes(u32 *nodes, u32 count, bool is_root, u32 *value) {
    PRIVATE(Chain, chain, GROUP_CHUNKS);
    while (count > 1) {
        const u32 last = count == 2 && is_root ? ROOT : 0;
        FOR_EACH_THREAD(thread, GROUP_CHUNKS) {
            if (2 * thread + 1 < count) {
                u32 m[16];
                take_node(nodes, 2 * thread, m);
                take_node(nodes, 2 * thread + 1, m + VALUE_WORDS);
                OWN(chain, thread) = compress(initial_chain(), m, 0, BLOCK_BYTES, PARENT | last);
            } else if (2 * thread < count) {
                take_node(nodes, 2 * thread, OWN(chain, thread).word);
            }
        }
        BLOCK_BARRIER();
        FOR_EACH_THREAD(thread, GROUP_CHUNKS) {
            if (2 * thread < count) {
                put_node(nodes, thread, OWN(chain, thread));
            }
        }
        BLOCK_BARRIER();
        count = (count + 1) / 2;
    }
    FOR_EACH_THREAD(thread, GROUP_CHUNKS) {
        if (thread < VALUE_WORDS) {
            value[thread] = nodes[thread * GROUP_CHUNKS];
        }
    }
}

// ---- The tag: Toeplitz-NH (UMAC, CRYPTO '99) ----

struct Sums {
    u64 lane[LANES];
};

// Two pairs of words and the ten words of key that belong to them.
DEVICE void add_products(Sums &sums, const u32 *m, const u32 *key) {
#pragma unroll
    for (u32 lane = 0; lane < LANES; lane++) {
        const u32 *k = key + 2 * lane;
        sums.lane[lane] += (u64)(m[0] + k[0]) * (m[1] + k[1]);
        sums.lane[lane] += (u64)(m[2] + k[2]) * (m[3] + k[3]);
    }
}

DEVICE void put_sums(u64 *scratch, u32 threads, u32 thread, const Sums &sums) {
#pragma unroll
    for (u32 lane = 0; lane < LANES; lane++) {
        scratch[lane * threads + thread] = sums.lane[lane];
    }
}

// Adds up what put_sums() left there for each of `threads`, a power of two; the sums go to `tag`. What follows may
// use `scratch` again.
DEVICE void reduce_sums(u64 *scratch, u32 threads, u64 *tag) {
    for (u32 half = threads / 2; half > 0; half /= 2) {
        BLOCK_BARRIER();
        FOR_EACH_THREAD(thread, threads) {
            for (u32 lane = 0; thread < half && lane < LANES; lane++) {
                scratch[lane * threads + thread] += scratch[lane * threads + thread + half];
            }
        }
    }
    BLOCK_BARRIER();
    FOR_EACH_THREAD(thread, threads) {
        if (thread < LANES) {
            tag[thread] = scratch[thread * threads];
        }
    }
    BLOCK_BARRIER();
}

DEVICE void take_piece(const uint4 &piece, u32 *words) {
    words[0] = piece.x;
    words[1] = piece.y;
    words[2] = piece.z;
    words[3] = piece.w;
}

// ---- Kernels. Every argument is a u64. ----

// A group as its thread block sees it.
struct Group {
    const unsigned char *data;
    u32 bytes;
    u32 chunks;
    u64 position;   // number of chunks before it in the whole
    bool is_root;   // whether its value is the digest of the whole
};

DEVICE Group group_of(const Row *rows, u64 count, u64 index) {
    const Row row = row_of(rows, count, index);
    const u64 number = index - row.first_block;
    const u32 bytes = rest<u64>(row.size, number * GROUP_BYTES, GROUP_BYTES);
    return Group{(const unsigned char *)row.source + number * GROUP_BYTES, bytes,
                 bytes ? (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES : 1, row.position + number * GROUP_CHUNKS,
                 row.is_root != 0};
}

// A block of each chunk of a warp is staged at a time: 2 KiB, read from memory in whole sectors, 16 bytes a thread.
// The places in a row are swapped so that neither these writes nor the reads by row meet in a bank.
DEVICE u32 staged_place(u32 buffer, u32 chunk, u32 piece) {
    return (buffer * GROUP_CHUNKS + chunk) * BLOCK_PIECES + (piece ^ (chunk >> 1 & 3));
}

template <bool IS_WHOLE>
DEVICE void stage_block(uint4 *staged, const Group &group, u32 thread, u32 block) {
    const u32 piece = thread % BLOCK_PIECES;
    const u32 chunk = thread / 32 * 32 + thread % 32 / BLOCK_PIECES;
    const u32 start = chunk * CHUNK_BYTES + block * BLOCK_BYTES + piece * PIECE_BYTES;
    // Eight chunks on, the places are swapped in the same way.
    uint4 *target = &staged[staged_place(block % 2, chunk, piece)];
    if (IS_WHOLE) {
        copy_rows_later(target, group.data + start);
        return;
    }
#pragma unroll
    for (u32 step = 0; step < BLOCK_PIECES; step++) {
        const u32 place = start + step * ROWS_BYTES;
        const u32 count = rest(group.bytes, place, PIECE_BYTES);
        copy_later(target + step * ROWS_PIECES, group.data + (count ? place : 0), count);
    }
}

struct ChunkState {
    Chain chain;
    Sums sums;
    u32 key[12];  // of the piece at hand; the first eight stay from one piece to the next
};

template <bool IS_TAGGED>
DEVICE void begin_chunk(ChunkState &state, const uint4 *key, u32 thread) {
    state.chain = initial_chain();
    if (IS_TAGGED) {
        state.sums = Sums{};
        take_piece(key[thread], state.key);
        take_piece(key[GROUP_CHUNKS + thread], state.key + 4);
    }
}

// The block's words are in registers once; the tag and the digest are made of the same ones.
template <bool IS_TAGGED, bool IS_WHOLE>
DEVICE void digest_block(ChunkState &state, const Group &group, const uint4 *staged, const uint4 *key, u32 thread,
                         u32 block) {
    u32 m[16];
#pragma unroll
    for (u32 piece = 0; piece < BLOCK_PIECES; piece++) {
        take_piece(staged[staged_place(block % 2, thread, piece)], m + 4 * piece);
        if (IS_TAGGED) {
            take_piece(key[(block * BLOCK_PIECES + piece + 2) * GROUP_CHUNKS + thread], state.key + 8);
            add_products(state.sums, m + 4 * piece, state.key);
#pragma unroll
            for (u32 word = 0; word < 8; word++) {
                state.key[word] = state.key[word + 4];
            }
        }
    }
    // Section 2.4. Only an empty input has an empty block.
    const u32 start = block * BLOCK_BYTES;
    const u32 bytes = IS_WHOLE ? CHUNK_BYTES : rest(group.bytes, thread * CHUNK_BYTES, CHUNK_BYTES);
    if (IS_WHOLE || start < bytes || start == 0) {
        const u32 length = IS_WHOLE ? BLOCK_BYTES : rest(bytes, start, BLOCK_BYTES);
        const u32 end = CHUNK_END | (!IS_WHOLE && group.is_root && group.chunks == 1 ? ROOT : 0);
        const u32 flags = (start == 0 ? CHUNK_START : 0) | (start + BLOCK_BYTES >= bytes ? end : 0);
        state.chain = compress(state.chain, m, group.position + thread, length, flags);
    }
}

// While a block of every chunk is compressed, the next one is on its way.
template <bool IS_TAGGED, bool IS_WHOLE, typename States>
DEVICE void digest_chunks(States &state, const Group &group, uint4 *staged, const uint4 *key) {
    FOR_EACH_THREAD(thread, GROUP_CHUNKS) {
        begin_chunk<IS_TAGGED>(OWN(state, thread), key, thread);
        stage_block<IS_WHOLE>(staged, group, thread, 0);
        end_batch();
    }
#pragma unroll 1
    for (u32 block = 0; block < CHUNK_BLOCKS; block++) {
        FOR_EACH_THREAD(thread, GROUP_CHUNKS) {
            if (block + 1 < CHUNK_BLOCKS) {
                stage_block<IS_WHOLE>(staged, group, thread, block + 1);
            }
            end_batch();
            wait_for_all_but_newest_batch();
        }
        WARP_BARRIER();
        FOR_EACH_THREAD(thread, GROUP_CHUNKS) {
            digest_block<IS_TAGGED, IS_WHOLE>(OWN(state, thread), group, staged, key, thread, block);
        }
        WARP_BARRIER();
    }
}

// One thread block for each group, one thread for each of its chunks.
template <bool IS_TAGGED>
DEVICE void digest_group(u64 rows, u64 row_count, u64 values, u64 key, u64 tags) {
    SHARED_ARRAY(uint4, staged, 2 * GROUP_CHUNKS * BLOCK_PIECES);
    PRIVATE(ChunkState, state, GROUP_CHUNKS);
    const u64 index = BLOCK_INDEX();
    const Group group = group_of((const Row *)rows, row_count, index);
    if (group.bytes == GROUP_BYTES) {
        digest_chunks<IS_TAGGED, true>(state, group, staged, (const uint4 *)key);
    } else {
        digest_chunks<IS_TAGGED, false>(state, group, staged, (const uint4 *)key);
    }
    // The stage is free now; it takes the nodes, then the sums.
    BLOCK_BARRIER();
    u32 *nodes = (u32 *)staged;
    FOR_EACH_THREAD(thread, GROUP_CHUNKS) { put_node(nodes, thread, OWN(state, thread).chain); }
    BLOCK_BARRIER();
    reduce_nodes(nodes, group.chunks, group.is_root, (u32 *)values + index * VALUE_WORDS);
    if (IS_TAGGED) {
        u64 *sums = (u64 *)(nodes + GROUP_CHUNKS * VALUE_WORDS);
        FOR_EACH_THREAD(thread, GROUP_CHUNKS) { put_sums(sums, GROUP_CHUNKS, thread, OWN(state, thread).sums); }
        reduce_sums(sums, GROUP_CHUNKS, (u64 *)tags + index * LANES);
    }
}

KERNEL(GROUP_CHUNKS, 8) blake3_groups(u64 rows, u64 row_count, u64 values) {
    digest_group<false>(rows, row_count, values, 0, 0);
}

KERNEL(GROUP_CHUNKS, 6) blake3_groups_tagged(u64 rows, u64 row_count, u64 values, u64 spread_key, u64 tags) {
    digest_group<true>(rows, row_count, values, spread_key, tags);
}

// The tree above the groups: GROUP_CHUNKS values of a row become one, launch after launch.
KERNEL(GROUP_CHUNKS, 8) blake3_parents(u64 rows, u64 row_count, u64 values) {
    SHARED_ARRAY(u32, nodes, GROUP_CHUNKS * VALUE_WORDS);
    const u64 index = BLOCK_INDEX();
    const Row row = row_of((const Row *)rows, row_count, index);
    const u64 start = (index - row.first_block) * GROUP_CHUNKS;
    const u32 *source = (const u32 *)row.source + start * VALUE_WORDS;
    const u32 count = rest<u64>(row.size, start, GROUP_CHUNKS);
    FOR_EACH_THREAD(thread, GROUP_CHUNKS) {
        for (u32 place = thread; place < count * VALUE_WORDS; place += GROUP_CHUNKS) {
            nodes[place % VALUE_WORDS * GROUP_CHUNKS + place / VALUE_WORDS] = source[place];
        }
    }
    BLOCK_BARRIER();
    reduce_nodes(nodes, count, row.is_root != 0, (u32 *)values + index * VALUE_WORDS);
}

// What is left of a group behind its last whole piece, then zeros.
DEVICE uint4 tail_of(const Group &group) {
    const u32 start = group.bytes / PIECE_BYTES * PIECE_BYTES;
    u64 half[2] = {0, 0};
#pragma unroll
    for (u32 place = 0; place < PIECE_BYTES; place++) {
        if (start + place < group.bytes) {
            half[place / 8] |= (u64)group.data[start + place] << 8 * (place % 8);
        }
    }
    return uint4{(u32)half[0], (u32)(half[0] >> 32), (u32)half[1], (u32)(half[1] >> 32)};
}

struct GroupSums {
    Sums group[TAG_GROUPS];
};

// The same piece of each group. All reads are begun before the first is used.
DEVICE void add_pieces(GroupSums &sums, const Group *groups, const uint4 *tails, const uint4 *key, u32 piece) {
    const u32 end = (piece + 1) * PIECE_BYTES;
    uint4 pieces[TAG_GROUPS];
    u32 words_of_key[12];
#pragma unroll
    for (u32 number = 0; number < TAG_GROUPS; number++) {
        pieces[number] = read_once(groups[number].data + end - PIECE_BYTES, end <= groups[number].bytes);
    }
#pragma unroll
    for (u32 part = 0; part < 3; part++) {
        take_piece(key[piece + part], words_of_key + 4 * part);
    }
#pragma unroll
    for (u32 number = 0; number < TAG_GROUPS; number++) {
        if (groups[number].bytes / PIECE_BYTES == piece) {
            pieces[number] = tails[number];
        }
        u32 m[4];
        take_piece(pieces[number], m);
        add_products(sums.group[number], m, words_of_key);
    }
}

// The tag alone. A thread block works on several groups, so that what it reads of the key serves all of them.
KERNEL(TAG_THREADS, 2) tag_groups(u64 rows, u64 row_count, u64 group_count, u64 key_address, u64 tags) {
    SHARED_ARRAY(u64, scratch, TAG_THREADS * LANES);
    SHARED_ARRAY(uint4, tails, TAG_GROUPS);
    PRIVATE(GroupSums, sums, TAG_THREADS);
    const uint4 *key = (const uint4 *)key_address;
    const u64 first = BLOCK_INDEX() * (u64)TAG_GROUPS;
    Group groups[TAG_GROUPS];
#pragma unroll
    for (u32 number = 0; number < TAG_GROUPS; number++) {
        // Behind the last group there is nothing: no byte is read, nothing is written.
        groups[number] = group_of((const Row *)rows, row_count, first + number);
    }
    FOR_EACH_THREAD(thread, TAG_THREADS) {
#pragma unroll
        for (u32 number = 0; number < TAG_GROUPS; number++) {
            if (thread == number) {
                tails[number] = tail_of(groups[number]);
            }
        }
    }
    BLOCK_BARRIER();
    FOR_EACH_THREAD(thread, TAG_THREADS) {
        OWN(sums, thread) = GroupSums{};
#pragma unroll 1
        for (u32 piece = thread; piece < GROUP_PIECES; piece += TAG_THREADS) {
            add_pieces(OWN(sums, thread), groups, tails, key, piece);
        }
    }
#pragma unroll
    for (u32 number = 0; number < TAG_GROUPS; number++) {
        if (first + number < group_count) {
            FOR_EACH_THREAD(thread, TAG_THREADS) {
                put_sums(scratch, TAG_THREADS, thread, OWN(sums, thread).group[number]);
            }
            reduce_sums(scratch, TAG_THREADS, (u64 *)tags + (first + number) * LANES);
        }
    }
}
